"""TODO-DOC from training.run"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec
from alphabar.conditioning.label_frequencies import LabelFrequencies
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.data.augment import COLUMNS
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import read_folder
from alphabar.methods.base import Method
from alphabar.methods.registry import method_of
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network
from alphabar.networks.layers import Attention
from alphabar.recipes.schema import Recipe, make_recipe
from alphabar.runs.run import Run
from alphabar.runtime import default_device
from alphabar.tensor_files import unpack_tensors


def build_denoiser(recipe: Recipe, vocabulary: Vocabulary | None = None) -> NetworkDenoiser:
    """The denoiser that a recipe describes, its weights drawn from the recipe's seed."""
    conditions = vocabulary.conditions if vocabulary else ()
    if recipe.data.augment:
        conditions = (*conditions, ("transformation", COLUMNS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = NETWORKS.build(
            recipe.network, channels=build_codec(recipe.data).channels, conditions=conditions
        )
    return NetworkDenoiser(
        network,
        PARAMETERIZATIONS.build(recipe.parameterization),
        SCHEDULES.build(recipe.schedule),
    )


@dataclass(frozen=True)
class Model:
    """A trained denoiser and what is needed to draw from it."""

    denoiser: NetworkDenoiser
    recipe: Recipe
    statistics: DataStatistics  # of the training pictures, for the start "gaussian"
    images: int  # seen in training
    path: Path
    vocabulary: Vocabulary | None = None  # the fields of its condition
    label_frequencies: LabelFrequencies = ()  # the labels of some training items, drawn at random
    early: NetworkDenoiser | None = None  # as it was early in the training: what autoguidance leads away from

    @property
    def codec(self) -> Codec:
        """What a sample of this model is."""
        return build_codec(self.recipe.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a signal, (channels, *spatial)."""
        return self.codec.shape

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.denoiser.parameters()).device

    @property
    def method(self) -> type[Method]:
        """What the model was trained to do, and so what it can do."""
        return method_of(self.recipe)

    @property
    def attention(self) -> Attention | None:
        """The attention that SAG and PAG look at, where the network has one."""
        network = self.denoiser.network
        return network.middle_attention() if isinstance(network, Network) else None


def shipped() -> list[Path]:
    """The folders of the models that come with alphabar; their names are the models'."""
    folder = Path(__file__).parent.parent / "models"
    return sorted(path.parent for path in folder.glob("*/recipe.json"))


def locate(path: str | Path) -> Path:
    """The folder of a model: the path, or where nothing lies there the shipped model of that name."""
    path = Path(path)
    return path if path.exists() else next((s for s in shipped() if s.name == str(path)), path)


def holds_model(path: Path) -> bool:
    """Whether a path or a name is that of a run or a model, rather than of pictures."""
    return Run(path).exists or (locate(path) / "recipe.json").is_file()


def load_model(
    path: str | Path, device: str | torch.device | None = None, *, ema: float | None = None
) -> Model:
    """The model in a run folder (its newest whole checkpoint), in a model folder or of a shipped name.

    device: where it is to run; by default the GPU, where there is one.
    ema: the length of the average of the weights, as a share of the training, instead of the recipe's.
    Raises AlphabarError where there is none or its bytes are damaged, UsageError for an average that the
    run cannot give.
    """
    path = locate(path)
    run = Run(path)
    if run.exists:
        checkpoint, problems = run.newest_checkpoint()
        if checkpoint is None:
            why = problems[0].split(";")[0] if problems else "it has no checkpoint yet"
            raise AlphabarError(f"nothing to load in the run {path}: {why}")
        files, recipe, images = checkpoint.files, run.recipe, checkpoint.images
    elif holds_model(path):
        files = read_folder(path)
        about = json.loads(files["recipe.json"])
        recipe, images = make_recipe(about["recipe"]), about["images"]
    elif path.exists():
        raise AlphabarError(f"{path} is neither a run folder (recipe.toml) nor a model folder (recipe.json)")
    else:
        names = ", ".join(model.name for model in shipped())
        raise AlphabarError(
            f"there is no model at {path}" + (f", nor a shipped one: {names}" if names else "")
        )
    if ema is not None and not run.exists:
        raise UsageError(f"{path} is a model folder: only a run can change the length of its average")
    vocabulary, frequencies = None, ()
    if "vocabulary.json" in files:
        vocabulary = Vocabulary.from_dict(json.loads(files["vocabulary.json"]))
        frequencies = tuple(json.loads(files["label_frequencies.json"]))

    def ready(weights: bytes, other: Mapping[str, Tensor] | None = None) -> NetworkDenoiser:
        denoiser = build_denoiser(recipe, vocabulary)
        load_weights(denoiser.network, {**unpack_tensors(weights), **(other or {})}, path)
        return denoiser.eval().requires_grad_(False).to(device or default_device())

    return Model(
        denoiser=ready(
            files.get("ema.safetensors", files["model.safetensors"]),
            None if ema is None else run.average(ema),
        ),
        recipe=recipe,
        statistics=DataStatistics(**unpack_tensors(files["statistics.safetensors"])),
        images=images,
        path=path,
        vocabulary=vocabulary,
        label_frequencies=frequencies,
        early=ready(files["early.safetensors"]) if "early.safetensors" in files else None,
    )


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network. Raises AlphabarError where the weights are those of another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise AlphabarError(f"the weights in {path} do not fit the recipe's network: {first}") from None
