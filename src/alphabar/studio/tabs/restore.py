"""The tab Mend: fill, enlarge and restore pictures, with several answers and how far they lie apart."""

import html
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from alphabar.codecs.png_metadata import png_metadata
from alphabar.errors import UsageError
from alphabar.reporting.report_figures import patient_settings
from alphabar.restoration.degradation import Degradation, parse_degradation
from alphabar.restoration.photo import read_photo
from alphabar.restoration.restore import restore as restore_images
from alphabar.restoration.settings import restoration_settings
from alphabar.restoration.task import Task, degrade, panels, read_task
from alphabar.sampling.sample import sample
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, cancelling, data_uri, empty, sheet

LONGEST = 512  # pixels of a side that the page works on


PAINTED = 480  # pixels of the longer side to which a small picture is enlarged for painting, at most


ANSWERS = 8


# What one may try without knowing the grammar.
DEGRADATIONS = (
    "blur:1.5+noise:0.02",
    "motion:9,45",
    "noise:0.2",
    "jpeg:10",
    "grayscale",
    "random:0.7",
    "downsample:2",
    "noise:auto",
)


@dataclass(frozen=True)
class RestoredImages:
    """What the last job left, files that the browser may read."""

    before: Path
    answers: tuple[Path, ...]


def tab(page: Page, model: gr.Dropdown) -> None:
    """Build the tab. model: the dropdown with the chosen model's name."""
    text = page.text
    mended, past = gr.State(None), gr.State([])
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320, elem_classes="controls"):
            with gr.Tabs(elem_id="mend-tabs"):
                with gr.Tab(text("fill"), id="fill"):
                    gr.Markdown(text("fill_info"))
                    editor = gr.ImageEditor(
                        type="pil",
                        format="png",  # what is known has to come back to the bit
                        label=text("paint"),
                        brush=gr.Brush(default_size=36, colors=["#ff3d8b"], color_mode="fixed"),
                        eraser=gr.Eraser(default_size=36),
                        layers=False,
                        transforms=(),
                        sources=("upload", "clipboard"),
                        height=400,
                        elem_id="editor",
                    )
                    with gr.Row():
                        fill = gr.Button(text("fill_go"), variant="primary", elem_id="fill-go", min_width=90)
                        example = gr.Button(text("example"), elem_id="fill-example", min_width=90)
                        undo = gr.Button(text("undo"), elem_id="undo", min_width=90)
                with gr.Tab(text("enlarge"), id="enlarge", elem_id="tab-enlarge"):
                    gr.Markdown(text("enlarge_info"))
                    small = gr.Image(
                        label=text("own_picture"),
                        type="filepath",
                        sources=["upload", "clipboard"],
                        height=260,
                        elem_id="small",
                    )
                    factor = gr.Radio([2, 4, 8], value=4, label=text("factor"))
                    enlarge = gr.Button(
                        text("enlarge_go"), variant="primary", elem_id="enlarge-go", min_width=90
                    )
                with gr.Tab(text("restore"), id="restore", elem_id="tab-restore"):
                    gr.Markdown(text("restore_info"))
                    spoilt = gr.Image(
                        label=text("own_picture"),
                        type="filepath",
                        sources=["upload", "clipboard"],
                        height=260,
                        elem_id="spoilt",
                    )
                    degradation = gr.Dropdown(
                        list(DEGRADATIONS),
                        value=DEGRADATIONS[0],
                        allow_custom_value=True,
                        label=text("degradation"),
                        info=text("degradation_info"),
                        elem_id="degradation",
                    )
                    spoil = gr.Checkbox(True, label=text("spoil"))
                    restore = gr.Button(
                        text("restore_go"), variant="primary", elem_id="restore-go", min_width=90
                    )
            with gr.Row():
                n = gr.Slider(1, ANSWERS, 4, step=1, label=text("answers"), min_width=130)
                steps = gr.Slider(5, 200, 25, step=1, label=text("steps"), min_width=130)
            with gr.Row():
                seed = gr.Number(0, label=text("seed"), precision=0, minimum=0, min_width=110)
                longest = gr.Slider(
                    32, LONGEST, 128, step=8, label=text("longest"), info=text("longest_info"), min_width=150
                )
            stop = gr.Button(text("cancel"), elem_id="mend-cancel")
        with gr.Column(scale=1, min_width=320):
            said = gr.HTML(empty(text("mend_empty")), elem_id="mended-said")
            with gr.Column(visible=False) as results:
                slider = gr.ImageSlider(
                    label=text("before_after"),
                    show_label=False,
                    interactive=False,
                    elem_id="before-after",
                    height=380,
                )
                gallery = gr.Gallery(
                    show_label=False,
                    columns=4,
                    height=170,
                    object_fit="contain",
                    allow_preview=False,
                    interactive=False,
                    elem_id="answers",
                    buttons=[],
                )
                apart = gr.HTML(elem_id="spread")
                with gr.Row():
                    save = gr.DownloadButton(text("save_all"), elem_id="mend-save", min_width=90)
                    go_on = gr.Button(text("go_on"), min_width=90)

    def finish(
        name: str, task: Task, before: Path, numbers: tuple[int, int, int]
    ) -> Iterator[tuple[Any, ...]]:
        count, steps, seed = numbers
        loaded = page.shelf.load(name)
        settings = restoration_settings(loaded, task.operator, task.sigma_y, seed=seed, steps=steps)
        records = restore_images(loaded, task.y, task.operator, task.sigma_y, n=count, settings=settings)
        for record in records:
            if record.result is None:
                line = text("step", i=record.done, n=record.total)
                items = loaded.codec.decode(record.preview.step.x0.cpu())
                forming = sheet(loaded.codec.preview(items))
                yield page.progress(record.done, record.total, line) + forming, *[gr.skip()] * 6
        assert record.result is not None
        answers = record.result[:, 0]
        about = {
            "model": name,
            "images": loaded.images,
            "image": task.photo.name,
            "degradation": task.degradation.text,
            "sigma_y": task.sigma_y,
            **settings.to_dict(),
        }
        paths = []
        for k, answer in enumerate(answers):
            paths.append(page.new_file(".png"))
            image = task.photo.image(answer, task.known, task.colored)
            image.save(paths[-1], pnginfo=png_metadata({**about, "answer": k}))
        shown = panels(task, answers).numpy()
        archive = page.new_file(".zip")
        with zipfile.ZipFile(archive, "w") as file:
            for k, path in enumerate(paths):
                file.write(path, f"answer-{k + 1}.png")
            if count > 1:
                with file.open("spread.png", "w") as inside:
                    Image.fromarray(shown[-1]).save(inside, "PNG")
        yield (
            page.note(text("mended", n=count)),
            gr.update(visible=True),
            (str(before), str(paths[0])),
            [str(path) for path in paths],
            spread_of(page, shown[-1]) if count > 1 else "",
            str(archive),
            RestoredImages(before, tuple(paths)),
        )

    def channels_of(name: str) -> int:
        return page.shelf.load(name).codec.channels

    def on_fill(name: str, painted: Any, n: int, steps: int, seed: float, longest: int) -> Iterator[Any]:
        if painted is None or painted["background"] is None:
            raise UsageError(text("no_picture"))
        picture = fitted(from_painting(painted["background"].convert("RGB")), longest)
        mask = mask_of(painted["layers"], picture.size)
        if not mask.any():
            raise UsageError(text("no_mask"))
        before, file, hole = page.new_file(".png"), page.new_file(".png"), page.new_file(".png")
        picture.save(file)
        Image.fromarray((mask * 255).astype(np.uint8)).save(hole)
        Image.fromarray(np.where(mask[..., None], 127, np.asarray(picture)).astype(np.uint8)).save(before)
        part = {"name": "mask", "file": str(hole)}
        task = read_task(file, Degradation("mask", (part,), 0.0), channels_of(name))
        yield from finish(name, task, before, (int(n), int(steps), int(seed or 0)))

    def on_enlarge(
        name: str, file: str | None, factor: int, n: int, steps: int, seed: float, longest: int
    ) -> Iterator[Any]:
        small = working_file(page, file, max(int(longest) // int(factor), 8))
        task = read_task(small, parse_degradation(f"downsample:{int(factor)}"), channels_of(name))
        yield from finish(
            name, task, enlarged(page, small, int(factor)), (int(n), int(steps), int(seed or 0))
        )

    def on_restore(name: str, file: str | None, what: str, spoil: bool, *settings: Any) -> Iterator[Any]:
        n, steps, seed, longest = settings
        degradation = parse_degradation(str(what))
        if degradation.needs_files:
            raise UsageError(text("no_files"))
        times = degradation.factor
        given = working_file(
            page, file, max(int(longest) // (1 if spoil else times), 8), times if spoil else 1
        )
        if spoil:
            image = degrade(read_photo(given), degradation, seed=int(seed or 0))
            given = page.new_file(".png")
            image.save(given)
        task = read_task(given, degradation, channels_of(name))
        before = enlarged(page, given, times)
        yield from finish(name, task, before, (int(n), int(steps), int(seed or 0)))

    def on_example(name: str, seed: float) -> Iterator[Any]:
        loaded = page.shelf.load(name)
        *_, record = sample(loaded, 1, patient_settings(loaded), first=int(seed or 0))
        assert record.result is not None
        yield for_painting(Image.fromarray(record.result[0].numpy()))

    def on_upload(painted: Any) -> Iterator[Any]:
        picture = painted["background"] if painted else None
        yield gr.skip() if picture is None else for_painting(picture.convert("RGB"))

    def choose(done: RestoredImages | None, event: gr.SelectData) -> Any:
        return gr.skip() if done is None else (str(done.before), str(done.answers[event.index]))

    def take(pair: Any, painted: Any, past: list[Any]) -> Iterator[Any]:
        if pair is None:
            raise UsageError(text("no_picture"))
        before = painted["background"] if painted else None
        with Image.open(pair[1]) as answer:
            yield for_painting(answer.convert("RGB")), [*past[-8:], before]

    def back(past: list[Any]) -> Iterator[Any]:
        yield (past[-1], past[:-1]) if past else (None, [])

    settings = [n, steps, seed, longest]
    outputs = [said, results, slider, gallery, apart, save, mended]
    jobs = [
        fill.click(page.told(on_fill), [model, editor, *settings], outputs, **ONE_AT_A_TIME),
        enlarge.click(page.told(on_enlarge), [model, small, factor, *settings], outputs, **ONE_AT_A_TIME),
        restore.click(
            page.told(on_restore), [model, spoilt, degradation, spoil, *settings], outputs, **ONE_AT_A_TIME
        ),
    ]
    cancelling(page, stop, jobs, said)
    editor.upload(page.told(on_upload), editor, editor, **LIGHT)
    example.click(page.told(on_example), [model, seed], editor, **ONE_AT_A_TIME)
    gallery.select(choose, mended, slider, **LIGHT)
    go_on.click(page.told(take), [slider, editor, past], [editor, past], **LIGHT)
    undo.click(page.told(back), past, [editor, past], **LIGHT)


def painting_factor(width: int, height: int) -> int:
    """How many times a picture is enlarged to be painted on: the editor shows no less than its pixels."""
    return max(PAINTED // max(width, height), 1)


def for_painting(image: Image.Image) -> Image.Image:
    """A small picture with its pixels enlarged, so that a brush is finer than it."""
    times = painting_factor(*image.size)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def from_painting(image: Image.Image) -> Image.Image:
    """The picture before `for_painting`, to the bit; another one as it is."""
    for times in range(PAINTED // 8, 1, -1):
        width, height = image.width // times, image.height // times
        if (width * times, height * times) == image.size and painting_factor(width, height) == times:
            small = image.resize((width, height), Image.Resampling.NEAREST)
            if np.array_equal(np.asarray(for_painting(small)), np.asarray(image)):
                return small
    return image


def spread_of(page: Page, shown: np.ndarray) -> str:
    """The map of how far the answers lie apart, with what it means."""
    said = html.escape(page.text("spread"))
    picture = f'<img src="{data_uri(shown)}" alt="">'
    return f'<div class="pair"><figure>{picture}<figcaption>{said}</figcaption></figure></div>'


def fitted(image: Image.Image, longest: int) -> Image.Image:
    """The picture, made smaller where a side is longer than this many pixels."""
    image = image.copy()
    image.thumbnail((min(int(longest), LONGEST),) * 2, Image.Resampling.LANCZOS)
    return image


def mask_of(layers: list[Image.Image], size: tuple[int, int]) -> np.ndarray:
    """Where anything was painted, (h, w) bool, at this (width, height)."""
    mask = np.zeros(size[::-1], bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        mask |= np.asarray(alpha.resize(size, Image.Resampling.BOX)) > 12
    return mask


def working_file(page: Page, file: str | None, longest: int, multiple: int = 1) -> Path:
    """A picture file as one that the page can work on, its sides multiples of a number.

    Raises what `read_photo` raises.
    """
    if file is None:
        raise UsageError(page.text("no_picture"))
    photo = read_photo(Path(file))
    image = photo.image(photo.signal()[0])
    path = page.new_file(".png")
    image = fitted(image, longest)
    width, height = (max(side // multiple, 1) * multiple for side in image.size)
    image.crop((0, 0, width, height)).save(path)
    return path


def enlarged(page: Page, file: Path, factor: int) -> Path:
    """The picture as large as its answers, its pixels visible."""
    path = page.new_file(".png")
    with Image.open(file) as image:
        size = image.width * factor, image.height * factor
        image.convert("RGB").resize(size, Image.Resampling.NEAREST).save(path)
    return path
