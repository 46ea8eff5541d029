"""A trained model: loaded from a run, from a model folder or by the name of a shipped one."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from alphabar.codecs import build_codec
from alphabar.codecs.base import Codec, LearnedCodec
from alphabar.conditioning.label_files import read_labels
from alphabar.conditioning.label_frequencies import LabelFrequencies
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.data.augment import COLUMNS
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import (
    Damaged,
    interpreting,
    is_file,
    pack_json,
    parse_json,
    read_folder,
    write_folder,
)
from alphabar.methods.base import Method
from alphabar.methods.registry import method_of
from alphabar.networks import NETWORKS
from alphabar.networks.base import Network, without_memory
from alphabar.networks.layers import Attention
from alphabar.recipes.schema import Recipe, make_recipe
from alphabar.runs.checkpoints import Checkpoint
from alphabar.runs.hub import fetch_model, hub_model
from alphabar.runs.run import WEIGHTS, Run, without_checkpoints
from alphabar.runtime import default_device
from alphabar.tensor_files import difference, tensors_in

WHOLE, EARLY, STATISTICS = "model.safetensors", "early.safetensors", "statistics.safetensors"

CODEC = "codec.safetensors"  # in a model folder: the weights of a learned codec

CODEC_SUM = "codec.sha256"  # in a checkpoint: which weights these are


@dataclass(frozen=True)
class Model:
    """A trained denoiser and what is needed to sample from it.

    statistics: of the training data, for the initial noise "gaussian". images: seen in training.
    conditioning: what samples can be conditioned on, or None. early: the denoiser as it was early in the
    training, which autoguidance leads away from, or None. codec_weights: of a learned codec.
    """

    denoiser: NetworkDenoiser
    recipe: Recipe
    statistics: DataStatistics
    images: int
    path: Path
    vocabulary: Vocabulary | None = None
    label_frequencies: LabelFrequencies = ()
    early: NetworkDenoiser | None = None
    codec_weights: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def codec(self) -> Codec:
        """What a sample of this model is."""
        return trained_codec(self.recipe, self.codec_weights, self.device)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a signal, (channels, *spatial)."""
        return self.codec.shape

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.denoiser.parameters()).device

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the weights."""
        networks = [d.network.state_dict() for d in (self.denoiser, self.early) if d]
        return fingerprint(*networks, self.codec_weights)

    @property
    def method(self) -> type[Method]:
        """What the model was trained to do, and so what it can do."""
        return method_of(self.recipe)

    @property
    def attention(self) -> Attention | None:
        """The attention that self- and perturbed-attention guidance use, where the network has one."""
        network = self.denoiser.network
        return network.middle_attention() if isinstance(network, Network) else None


def fingerprint(*weights: Mapping[str, Tensor]) -> str:
    """A SHA-256 of weights by name."""
    digest = hashlib.sha256()
    for part in weights:
        for name, value in sorted(part.items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def trained_codec(recipe: Recipe, weights: Mapping[str, Tensor], device: str | torch.device = "cpu") -> Codec:
    """The codec of a recipe, with its weights where it is learned; UsageError where they do not fit."""
    codec = build_codec(recipe.data)
    if isinstance(codec, LearnedCodec):
        codec.load(weights, device)
    return codec


def codec_of(run: Run, checkpoint: Checkpoint | None = None) -> Codec:
    """The codec of a run, with its weights where it is learned.

    Raises AlphabarError where they are missing, damaged or not those of the checkpoint, UsageError where they
    do not fit.
    """
    return trained_codec(run.recipe, _codec_weights(run.recipe, codec_file(run, checkpoint), run.path))


def codec_file(run: Run, checkpoint: Checkpoint | None = None) -> dict[str, bytes]:
    """The file of a model folder with the weights of a run's learned codec, where it has any.

    Raises AlphabarError where they are not those that the checkpoint was trained with, which it knows by
    `codec_sum`.
    """
    if not run.codec.exists():
        return {}
    files = {CODEC: read_folder(run.codec).get(WEIGHTS, b"")}
    known = {name: data for name, data in checkpoint.files.items() if name == CODEC_SUM} if checkpoint else {}
    if known and known != codec_sum(files):
        raise AlphabarError("runs.other_codec", path=run.path, codec=run.codec)
    return files


def codec_sum(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The file of a checkpoint with the SHA-256 of the weights of a learned codec, where there are any."""
    return {CODEC_SUM: hashlib.sha256(files[CODEC]).hexdigest().encode()} if CODEC in files else {}


def _codec_weights(recipe: Recipe, files: Mapping[str, bytes], path: Path) -> dict[str, Tensor]:
    """The weights of a recipe's learned codec, in the files of a model or a run; none of any other."""
    if not isinstance(build_codec(recipe.data), LearnedCodec):
        return {}
    if CODEC not in files:
        raise AlphabarError("runs.without_autoencoder", path=path)
    weights = tensors_in(files, CODEC, path)
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise AlphabarError("runs.not_finite", path=path)
    try:
        trained_codec(recipe, weights)
    except UsageError as error:
        raise UsageError("recipes.in_file", path=path, problem=error.message) from None
    return weights


def build_denoiser(recipe: Recipe, vocabulary: Vocabulary | None = None) -> NetworkDenoiser:
    """The denoiser that a recipe describes, with random weights from the recipe's seed."""
    return NetworkDenoiser(
        _build_network(recipe, vocabulary),
        PARAMETERIZATIONS.build(recipe.parameterization),
        SCHEDULES.build(recipe.schedule),
        recipe.coarse,
    )


def _build_network(recipe: Recipe, vocabulary: Vocabulary | None) -> nn.Module:
    conditions = vocabulary.conditions if vocabulary else ()
    if recipe.data.augment:
        conditions = (*conditions, ("transformation", COLUMNS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        own = {"channels": build_codec(recipe.data).channels, "conditions": conditions}
        network = NETWORKS.build(recipe.network, **own)
        patch, rest = divmod(recipe.network.get("patch", 1), recipe.coarse)
        if recipe.coarse > 1 and network.spreads and not rest:
            # It begins as one of coarse pictures: their detail changes nothing, and that of noise is ignored.
            small = NETWORKS.build(recipe.network | {"patch": patch}, **own)
            network.load_compatible(small.state_dict())
        return network


def shipped() -> list[Path]:
    """The folders of the models that come with alphabar; a folder's name is the model's name."""
    folder = Path(__file__).parent.parent / "models"
    return sorted(path.parent for path in folder.glob("*/recipe.json"))


def locate(path: str | Path) -> Path:
    """The folder of a model: the path itself, or where nothing lies there the shipped model of that name.

    hf://owner/name[@revision] is a model of the Hugging Face Hub, which is fetched into the cache; raises as
    `fetch_model` does.
    """
    if (model := hub_model(path)) is not None:
        return fetch_model(model)
    path = Path(path)
    return path if os.path.exists(path) else next((s for s in shipped() if s.name == str(path)), path)


def holds_model(path: Path) -> bool:
    """Whether a path or a name is that of a run or of a model, rather than of data."""
    return Run(path).exists or is_file(locate(path) / "recipe.json")


def load_model(
    path: str | Path, device: str | torch.device | None = None, *, ema: float | None = None
) -> Model:
    """The model in a run folder (its newest whole checkpoint), in a model folder or of a shipped name.

    device: where it computes; by default on the GPU, where there is one.
    ema: the length of the average of the weights as a share of the training (post-hoc EMA), for a run.
    Raises AlphabarError where there is no model or its bytes are damaged, UsageError for an average that the
    run cannot give.
    """
    path = locate(path)
    run = Run(path)
    folder, files, recipe, images = _read_run(run) if run.exists else _read_model_folder(path)
    if ema is not None and not run.exists:
        raise UsageError("runs.ema_of_a_model", path=path)
    replaced = {} if ema is None else run.snapshots.average(ema)
    with interpreting(folder):
        vocabulary, frequencies = read_labels(files, folder)
        statistics = read_statistics(files, recipe, folder)
        weights = tensors_in(files, "ema.safetensors" if files.get("ema.safetensors") else WHOLE, folder)
        denoiser = _denoiser(recipe, vocabulary, {**weights, **replaced}, folder)
        early = tensors_in(files, EARLY, folder) if files.get(EARLY) else None
        early_denoiser = early and _denoiser(recipe, vocabulary, early, folder)
        codec_weights = _codec_weights(recipe, files, path)
    device = device or default_device()
    return Model(
        denoiser=denoiser.to(device),
        recipe=recipe,
        statistics=statistics,
        images=images,
        path=path,
        vocabulary=vocabulary,
        label_frequencies=frequencies,
        early=early_denoiser.to(device) if early_denoiser else None,
        codec_weights=codec_weights,
    )


def read_statistics(files: Mapping[str, bytes], recipe: Recipe, path: Path) -> DataStatistics:
    """The statistics of the training data, in the files of a model or of a checkpoint.

    Raises AlphabarError naming ``path`` where they do not fit the recipe.
    """
    with interpreting(path):
        tensors, codec = tensors_in(files, STATISTICS, path), build_codec(recipe.data)
        own = {"mean": torch.empty(codec.shape, device="meta")}
        found = difference(own, {name: tensors[name] for name in tensors if name == "mean"})
        if not found:
            m = codec.coarsen(tensors["mean"].float()[None]).shape[1]
            found = difference({**own, "factor": torch.empty(m, m, device="meta")}, tensors)
        if found:
            raise AlphabarError("runs.other_statistics", path=path, reason="{}: {}, {}".format(*found))
        statistics = DataStatistics(**tensors)
        if not all(part.isfinite().all() for part in statistics):
            raise AlphabarError("runs.not_finite", path=path)
    return statistics


def _denoiser(
    recipe: Recipe, vocabulary: Vocabulary | None, weights: Mapping[str, Tensor], path: Path
) -> NetworkDenoiser:
    """The denoiser with these weights, for evaluation."""
    with without_memory():  # a recipe may ask for more than there is; its weights show the truth
        check_weights(_build_network(recipe, vocabulary), weights, path)
    built = build_denoiser(recipe, vocabulary)
    load_weights(built.network, weights, path)
    return built.eval().requires_grad_(False)


def check_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises AlphabarError naming ``path`` for weights that do not fit a network or are not finite."""
    if found := difference(network.state_dict(), weights):
        raise AlphabarError("runs.other_weights", path=path, reason="{}: {}, {}".format(*found))
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise AlphabarError("runs.not_finite", path=path)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fills a network with weights. Raises AlphabarError naming ``path`` where they do not fit."""
    if found := difference(network.state_dict(), weights):
        raise AlphabarError("runs.other_weights", path=path, reason="{}: {}, {}".format(*found))
    network.load_state_dict(weights)


def write_model_folder(folder: Path, recipe: Recipe, images: int, files: Mapping[str, bytes]) -> None:
    """Writes a model folder, which others load.

    images: seen in training. files: model.safetensors, statistics.safetensors and what only some models have.
    """
    write_folder(folder, model_folder_files(recipe, images, files))


def model_folder_files(recipe: Recipe, images: int, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of a model folder. The arguments are those of `write_model_folder`."""
    about = {"images": images, "recipe": recipe.model_dump(mode="json")}
    return {"recipe.json": pack_json(about), **files}


def _read_run(run: Run) -> tuple[Path, Mapping[str, bytes], Recipe, int]:
    checkpoint, problems = run.checkpoints.newest()
    if checkpoint is None:
        if problems:
            problem = problems[0].values["problem"]
            raise without_checkpoints(run, AlphabarError("runs.all_damaged", path=run.path, problem=problem))
        raise AlphabarError("runs.no_checkpoint", path=run.path)
    return checkpoint.path, {**checkpoint.files, **codec_file(run, checkpoint)}, run.recipe, checkpoint.images


def _read_model_folder(path: Path) -> tuple[Path, Mapping[str, bytes], Recipe, int]:
    if not holds_model(path):
        if os.path.exists(path):
            raise AlphabarError("runs.neither", path=path)
        raise AlphabarError("runs.no_model", path=path, shipped=", ".join(s.name for s in shipped()) or "–")
    files, file = read_folder(path), path / "recipe.json"
    for name in ("recipe.json", WHOLE, STATISTICS):
        if name not in files:
            raise Damaged("files.incomplete", path=path, missing=name)
    about = parse_json(files["recipe.json"], file, dict)
    values, images = about.get("recipe"), about.get("images")
    if not isinstance(values, dict) or type(images) is not int or images < 0:
        raise Damaged("files.other_content", path=file)
    try:
        return path, files, make_recipe(values, path), images
    except UsageError as error:
        raise UsageError("recipes.in_file", path=file, problem=error.message) from None
