"""Export for the Hugging Face Hub: a model folder, its card, a grid of samples and code that loads it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alphabar.errors import UsageError
from alphabar.evaluation.record import FILE, read_evaluation_file
from alphabar.export.base import Export, MakeItems, Target
from alphabar.export.card import Card, without_paths, write_card
from alphabar.files import pack_json, write_file, writing
from alphabar.guidance.base import EVERYWHERE
from alphabar.images import image_grid
from alphabar.messages import message
from alphabar.progress import Progress, last, staged
from alphabar.recipes.schema import Recipe, make_recipe
from alphabar.runs.model import CODEC, Model, load_model, write_model_folder
from alphabar.runs.run import Run
from alphabar.sampling.sample import sample
from alphabar.tensor_files import pack_tensors

LICENCE = re.compile("[a-z0-9][a-z0-9.-]*")
GRID = "samples.png"
WIDTH = 600  # pixels that a grid of samples has at least
LOADER = '''"""Generates four samples of the model beside this file. It needs alphabar."""

from pathlib import Path

from PIL import Image

from alphabar import last, load_model, sample

model = load_model(Path(__file__).parent)
for i, item in enumerate(last(sample(model, 4))):
    Image.fromarray(item.squeeze(-1).numpy()).save(f"{i}.png")
'''


class Hub(Target):
    """A folder for the Hugging Face Hub, which ``alphabar`` loads as hf://owner/name.

    licence: its identifier at the Hub, such as "mit" or "cc-by-nc-4.0". data: the name of what the model was
        trained on; by default that of the data of its run. samples: in the grid, at least 1.
    evaluation: a file with what ``alphabar evaluate --json`` has found about this model; by default the
        evaluation.json of its folder, if it has one.
    """

    extra = "hub"

    def __init__(
        self,
        *,
        licence: str = "unknown",
        data: str | None = None,
        samples: int = 16,
        evaluation: str | None = None,
    ):
        if not LICENCE.fullmatch(licence):
            raise UsageError("hub.licence", licence=licence)
        if samples < 1:
            raise UsageError("sampling.too_few_samples", n=samples)
        self.licence, self.data, self.samples, self.evaluation = licence, data, samples, evaluation

    def check(self, export: Export) -> None:
        """Raises UsageError for a guidance by another model or an evaluation of one, and as every target."""
        super().check(export)
        refuse_other_models(export)
        self.found_by_evaluation(export.model)

    def found_by_evaluation(self, model: Model) -> Mapping[str, Any] | None:
        """The last evaluation of this very model, an entry of evaluation.json; None where there is none.

        Raises UsageError where a file was named and holds none.
        """
        file = Path(self.evaluation) if self.evaluation else model.path / FILE
        entries, _ = read_evaluation_file(file)
        same = [each for each in entries if each.get("images") == model.images]
        if self.evaluation and not same:
            raise UsageError("hub.no_evaluation", path=file, images=model.images)
        return same[-1] if same else None

    def write(self, export: Export, folder: Path) -> Iterator[Progress[Mapping[str, Any]]]:
        """Writes the files of the model folder, README.md, samples.png and load.py."""
        model = export.model
        recipe = clean_recipe(export)
        write_model_folder(folder, recipe, model.images, model_files(model))
        grid = sample(model, self.samples, export.settings, precision="fp32")
        items = yield from staged(grid, message("hub.grid"))
        pictures = model.codec.preview(items)
        scale = max(1, -(-WIDTH // (pictures.shape[2] * max(1, int(self.samples**0.5)))))
        with writing(folder / GRID):
            image_grid(pictures, scale=scale).save(folder / GRID)
        card = Card(
            model=model,
            recipe=recipe,
            settings=export.settings,
            licence=self.licence,
            data=self.data or data_name(model),
            samples=self.samples,
            grid=GRID,
            evaluation=self.found_by_evaluation(model),
        )
        write_card(card, folder / "README.md")
        write_file(folder / "load.py", LOADER.encode())
        yield Progress(message("export.writing"), 1, 1, {})

    def load(self, export: Export, folder: Path) -> MakeItems:
        """What generates samples with the model in the folder."""
        model = load_model(folder, export.model.device)

        def make(first: int, count: int) -> Tensor:
            return last(sample(model, count, export.settings, first=first, batch=count, precision="fp32"))

        return make


def refuse_other_models(export: Export) -> None:
    """Raises UsageError for a guidance that needs a model beside the one that is exported."""
    for spec in export.settings.guidance:
        if spec.get("model") is not None:
            raise UsageError("export.needs_other_model", guidance=spec["name"])


def clean_recipe(export: Export) -> Recipe:
    """The model's recipe with the sampling of the export as its default, and without paths of a computer."""
    settings = export.settings
    values = without_paths(export.model.recipe.model_dump(mode="json"))
    lo, hi = settings.guidance_interval or EVERYWHERE
    guidance = []
    for spec in settings.guidance:
        own_lo, own_hi = spec["interval"] or EVERYWHERE
        both = (max(lo, own_lo), min(hi, own_hi))
        guidance.append({**spec, "interval": None if both == EVERYWHERE else both})
    values["sampling"] |= {
        "sampler": settings.sampler,
        "timesteps": settings.timesteps,
        "steps": settings.steps,
        "initial_noise": settings.initial_noise,
        "guidance": guidance,
    }
    return make_recipe(values)


def model_files(model: Model) -> dict[str, bytes]:
    """The files of a model folder beside recipe.json, from the model in memory.

    Weights are in float16 where that loses nothing.
    """
    files = {
        "model.safetensors": _pack_weights(model.denoiser.network.state_dict()),
        "statistics.safetensors": pack_tensors(model.statistics._asdict()),
    }
    if model.codec_weights:
        files[CODEC] = _pack_weights(model.codec_weights)
    if model.early is not None:
        files["early.safetensors"] = _pack_weights(model.early.network.state_dict())
    if model.vocabulary is not None:
        files["vocabulary.json"] = pack_json(model.vocabulary.to_dict())
        files["label_frequencies.json"] = pack_json([dict(labels) for labels in model.label_frequencies])
    return files


def _pack_weights(weights: Mapping[str, Tensor]) -> bytes:
    halves = {name: value.half() for name, value in weights.items() if value.is_floating_point()}
    lossless = all(value.to(weights[name]).equal(weights[name]) for name, value in halves.items())
    return pack_tensors({**weights, **halves} if lossless else weights)


def data_name(model: Model) -> str | None:
    """What a run was trained on, by name alone; None where it is not known."""
    data = Run(model.path).data
    return data if data is None or data.startswith("hf:") else Path(data).name
