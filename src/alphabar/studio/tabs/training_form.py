"""The form of a new training in the tab Runs: data, a name, how long, and what to train."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from alphabar.codecs.image_files import FITS
from alphabar.data.inspect import inspect
from alphabar.data.items import skipped_files
from alphabar.data.sources import open_source
from alphabar.errors import UsageError
from alphabar.files import writing
from alphabar.formatting import format_count, parse_count, parse_duration
from alphabar.methods.registry import method_of
from alphabar.recipes.presets import RECIPES, named_recipe
from alphabar.studio.elements import note, progress_bar
from alphabar.studio.jobs import TrainingJobs
from alphabar.studio.page import LIGHT, LOOKING, Page, paced
from alphabar.studio.temporary import TemporaryFiles
from alphabar.studio.upload import unpack, unpacked

BY_BUDGET = ""  # in place of a recipe: what suits the machine and the time
FINETUNE = "finetune:"  # before the name of a model, in place of a recipe
TOYCARS = "toycars"
CONDITIONS = ("", "class", "attributes", "text", "clusters")
SIZES = (16, 32, 64, 128, 256)
USUAL_SIZE = 64  # suggested at most: larger ones take hours


class TrainingForm:
    """Its controls and their handlers."""

    def __init__(self, page: Page, jobs: TrainingJobs):
        self.page, self.jobs = page, jobs
        with gr.Row(equal_height=False):
            with gr.Column(min_width=280):
                self._add_data()
            with gr.Column(min_width=280):
                self._add_settings()

    def _add_data(self) -> None:
        text = self.page.text
        self.source = gr.Radio(
            [(text("own_pictures"), "upload"), (text("toycars"), TOYCARS)],
            value="upload",
            label=text("data"),
            elem_id="new-source",
        )
        self.files = gr.File(
            label=text("upload"),
            file_count="multiple",
            height=150,
            elem_id="new-files",
        )
        self.found = gr.HTML(elem_id="new-found")

    def _add_settings(self) -> None:
        text = self.page.text
        self.name = gr.Textbox(
            "", label=text("run_name"), info=text("run_name_help"), placeholder="cars", elem_id="new-name"
        )
        with gr.Row():
            self.limit = gr.Radio(
                [(text("limit_budget"), "budget"), (text("limit_images"), "images")],
                value="budget",
                label=text("limit"),
                elem_id="new-limit",
            )
            self.amount = gr.Textbox(
                "10m", label=text("amount"), info=text("amount_help"), min_width=120, elem_id="new-budget"
            )
        self.recipe = gr.Dropdown(
            self._recipes(), value=BY_BUDGET, label=text("recipe"), elem_id="new-recipe"
        )
        with gr.Row() as self.own_settings:
            self.size = gr.Dropdown(
                list(SIZES),
                value=32,
                label=text("size"),
                info=text("size_help"),
                min_width=90,
                elem_id="new-size",
            )
            self.fit = gr.Dropdown(
                [(text(f"fit_{name}"), name) for name in FITS],
                value="crop",
                label=text("fit"),
                min_width=130,
                elem_id="new-fit",
            )
            self.condition = gr.Dropdown(
                [(text(f"condition_{name or 'none'}"), name) for name in CONDITIONS],
                value="",
                label=text("condition"),
                min_width=130,
                elem_id="new-condition",
            )
        self.train_button = gr.Button(text("train"), variant="primary", elem_id="train-button", min_width=90)
        self.status = gr.HTML(elem_id="new-status")

    def _recipes(self) -> list[tuple[str, str]]:
        """What can be trained here: recipes of models that generate samples, and models to finetune."""
        text = self.page.text
        names = [name for name in RECIPES if method_of(named_recipe(name)).samples]
        models = [(text("finetune", model=name), FINETUNE + name) for name in self.page.models.models()]
        return [(text("by_budget"), BY_BUDGET), *((name, name) for name in names), *models]

    def connect(self, begun: gr.State) -> None:
        """Connect the handlers. begun: the component that takes the name of a run that is being trained."""
        page = self.page
        self.inputs: list[Any] = [
            *(self.source, self.files, self.name, self.limit, self.amount),
            *(self.recipe, self.size, self.fit, self.condition),
        ]
        gr.on(
            [self.train_button.click, self.name.submit, self.amount.submit],
            page.handler(self.train, self.status),
            self.inputs,
            [self.status, begun],
            **LIGHT,
        )
        self.source.change(lambda kind: gr.update(visible=kind == "upload"), self.source, self.files, **LIGHT)
        gr.on(
            [self.files.upload, self.source.input],
            page.handler(self.suggest, self.found),
            [self.source, self.files],
            [self.found, self.size, self.fit, self.condition],
            **LOOKING,
        )
        self.files.clear(lambda: note(""), None, self.found, **LIGHT)
        self.limit.input(
            lambda limit: "10m" if limit == "budget" else "200k", self.limit, self.amount, **LIGHT
        )
        self.recipe.change(
            lambda recipe: gr.update(visible=not recipe.startswith(FINETUNE)),
            self.recipe,
            self.own_settings,
            **LIGHT,
        )
        self.recipe.focus(lambda: gr.update(choices=self._recipes()), None, self.recipe, **LIGHT)

    def suggest(self, source: str, files: list[str] | None) -> Iterator[tuple[Any, ...]]:
        """What is in the data, what cannot be used, and the size, the fit and the condition to choose."""
        page = self.page
        if source != "upload" or not files:
            yield note(""), *[gr.skip()] * 3
            return
        report = None
        with unpacked([Path(file) for file in files], TemporaryFiles(page.files)) as folder:
            for record in paced(inspect(open_source(folder))):
                line = page.text("inspecting", n=record.done, total=record.total)
                yield progress_bar(record.done, record.total, line), *[gr.skip()] * 3
                report = record.result
        assert report is not None
        size = max((s for s in SIZES if s <= min(report.size, USUAL_SIZE)), default=SIZES[0])
        facts = page.text(
            "found",
            pictures=format_count(report.pictures),
            skipped=format_count(len(report.skipped)),
            classes=format_count(len(report.classes)),
        )
        found = "".join(map(note, (facts, *map(page.say, report.reasons))))
        if notes := [*skipped_files(report.skipped), *report.notes]:
            found += f'<div class="apart">{"".join(note(page.say(each)) for each in notes)}</div>'
        yield found, size, report.fit, "class" if len(report.classes) > 1 else ""

    def train(
        self,
        source: str,
        files: list[str] | None,
        name: str,
        limit: str,
        amount: str,
        recipe: str,
        size: int,
        fit: str,
        condition: str,
    ) -> Iterator[tuple[Any, ...]]:
        """Begins a training. Whatever is wrong with the form is said before anything is unpacked."""
        page, models = self.page, self.page.models
        run = models.free_place(name.strip())
        if limit == "budget":
            command = ["--budget", f"{parse_duration(amount):g}s"]
        else:
            if recipe == BY_BUDGET:
                raise UsageError("studio.images_need_recipe")
            command = ["--images", str(parse_count(amount))]
        model = models.model(recipe.removeprefix(FINETUNE)) if recipe.startswith(FINETUNE) else None
        if source == "upload" and not files:
            raise UsageError("studio.no_files")
        self.jobs.check_free()
        data, pictures = TOYCARS, None
        if source == "upload":
            yield note(page.text("unpacking")), gr.skip()
            pictures = self._new_pictures(run.name, [Path(file) for file in files or []])
            data = str(pictures)
        if model:
            command = ["finetune", str(model), data, *command]
        else:
            command = ["train", data, *command, "--set", f"data.size={int(size)}", "--set", f"data.fit={fit}"]
            command += ["--recipe", recipe] if recipe else []
            command += ["--condition", condition] if condition else []
        try:
            self.jobs.launch(run, command, page.language, pictures)
        except BaseException:  # another person's training, for example, began meanwhile
            if pictures:
                shutil.rmtree(pictures, ignore_errors=True)
            raise
        yield note(page.text("training", name=run.name)), run.name

    def _new_pictures(self, name: str, files: list[Path]) -> Path:
        """A new folder of these pictures. No run uses one of its name, a renamed one neither."""
        parent = self.page.models.pictures
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
            folder, i = parent / name, 1
            while not _made(folder):  # at once, as two people may choose one name
                folder, i = parent / f"{name}-{i + 1}", i + 1
        try:
            unpack(files, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def _made(folder: Path) -> bool:
    """Makes a folder; False where there is one."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
