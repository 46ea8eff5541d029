"""A recipe: everything that decides a training except the data. One TOML file, checked and complete."""

import reprlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alphabar.codecs import CODECS, build_codec
from alphabar.codecs.base import Codec as CodecClass
from alphabar.codecs.base import one_line
from alphabar.codecs.latent import LatentCodec
from alphabar.conditioning.fields import CONDITIONS
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS, WEIGHTS
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.diffusion.schedules import SCHEDULES, Level
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.extensions import check_loaded, used_by
from alphabar.files import read_given_text
from alphabar.guidance import resolve_guidance
from alphabar.messages import message
from alphabar.methods.registry import METHODS, check_method, method_of
from alphabar.networks import NETWORKS
from alphabar.networks.base import WrongSize, without_memory
from alphabar.validation import problem_of

MOST_IMAGES = 10**12  # of a training; a number beyond it is a slip, and computers cannot count on
MOST_STEPS = 100_000  # of a sampler

Settings = dict[str, Any]
Share = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=8, le=4096)]
Codec = Annotated[Settings, BeforeValidator(CODECS.resolve)]
Schedule = Annotated[Settings, BeforeValidator(SCHEDULES.resolve)]
Parameterization = Annotated[Settings, BeforeValidator(PARAMETERIZATIONS.resolve)]
NoiseDistribution = Annotated[Settings, BeforeValidator(NOISE_DISTRIBUTIONS.resolve)]
Weight = Annotated[Settings, BeforeValidator(WEIGHTS.resolve)]
Network = Annotated[Settings, BeforeValidator(NETWORKS.resolve)]
Sampler = Annotated[Settings, BeforeValidator(SAMPLERS.resolve)]
Timesteps = Annotated[Settings, BeforeValidator(TIMESTEPS.resolve)]
InitialNoise = Annotated[Settings, BeforeValidator(INITIAL_NOISES.resolve)]
Guidance = Annotated[list[Settings], BeforeValidator(resolve_guidance)]
Method = Annotated[Settings, BeforeValidator(METHODS.resolve)]


class Section(BaseModel):
    """A part of a recipe: it cannot be changed, and keys that do not exist are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DataSettings(Section):
    """How the data becomes training signals."""

    codec: Codec = {"name": "image"}  # what a sample is
    size: Side | tuple[Side, Side] = 64  # the side of a square, or [height, width], in pixels
    channels: Literal[1, 3, 4] | None = None  # grey, RGB, RGBA; None: grey or RGB as the data is
    fit: Literal["squash", "crop", "box"] = "squash"
    flip: bool = True  # mirror half of the images left to right
    augment: float = Field(0, ge=0, le=1)  # probability of each transformation; samples are not transformed
    held_out: float = Field(0.1, ge=0, lt=1)  # share kept for evaluation, by a hash of each file


class ConditionSettings(Section):
    """What samples are conditioned on, of what the data says about its images."""

    on: str | None = None  # class, attributes, text, clusters; None: nothing
    # Share of the images whose labels are hidden in training. Where an image has several labels, half of the
    # other images show only some, each label with probability one half. 0 hides none.
    drop: float = Field(0.1, ge=0, le=1)


class OptimizerSettings(Section):
    """Adam, AdamW or Muon; the learning rate warms up linearly, stays, then decays to zero."""

    name: Literal["adam", "adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0, le=1000)
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0, le=1000)
    warm_up: int = Field(0, ge=0, le=MOST_IMAGES)  # images
    decay_from: float = Field(1.0, gt=0, le=1)  # share of the training after which the rate decays; 1 = never
    clip: float | None = Field(None, gt=0, le=1e9)  # largest norm of the gradient


class EmaSettings(Section):
    """The exponential moving average (EMA) of the weights that sampling uses; half_life 0 means none."""

    half_life: int = Field(0, ge=0, le=MOST_IMAGES)  # images
    ramp: float = Field(0.05, gt=0, le=1000)  # largest half-life as a share of the images seen
    snapshots: int = Field(0, ge=0, le=10_000)  # averages kept for post-hoc EMA; 0 keeps none


class SamplingDefaults(Section):
    """How samples are generated unless a person chooses otherwise."""

    sampler: Sampler
    timesteps: Timesteps
    steps: int = Field(ge=1, le=MOST_STEPS)
    initial_noise: InitialNoise = {"name": "standard_normal"}
    guidance: Guidance = []  # each with its name, scale and interval of noise levels sigma/alpha


class MonitorSettings(Section):
    """What is measured during training. It never changes the weights, but may end the training early."""

    share: float = Field(0.05, ge=0, lt=1)  # of the training time, at most; 0 = only at the end
    samples: int = Field(16, ge=1, le=10_000)  # images from fixed noise, shown as a grid
    levels: int = Field(
        16, ge=0, le=10_000
    )  # images of each side (training, held-out) for the error per noise level
    distance: int = Field(128, ge=0, le=1_000_000)  # samples for the quick distance, 0 = none
    steps: int = Field(10, ge=1, le=MOST_STEPS)  # of DPM-Solver++(2M), for grid and distance
    # Measurements in a row with a risen held-out error after which the training ends; 0 = never.
    patience: int = Field(0, ge=0, le=10_000)


class Recipe(Section):
    """All choices of a training, resolved: nothing is left to a default that could change later."""

    name: str
    data: DataSettings = DataSettings()
    method: Method = {"name": "diffusion"}
    condition: ConditionSettings = ConditionSettings()
    schedule: Schedule
    parameterization: Parameterization
    # The parameterization is for means over squares of so many pixels a side.
    coarse: int = Field(1, ge=1, le=4096)
    noise_distribution: NoiseDistribution
    stratified: bool = False  # noise levels spread evenly over each batch
    weight: Weight = {"name": "unit"}
    network: Network
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: EmaSettings = EmaSettings()
    sampling: SamplingDefaults
    monitor: MonitorSettings = MonitorSettings()
    batch: int = Field(128, ge=1, le=1_000_000)  # images of one update, over all processes
    accumulate: int = Field(1, ge=1, le=1_000_000)  # equal pieces a batch is computed in, to save memory
    recompute: bool = False  # what is inside a U-Net's blocks is computed again in the backward pass, too
    images: int = Field(ge=1, le=MOST_IMAGES)  # seen in the whole training, unless a budget is given
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    extensions: list[dict[str, str]] = []  # name and SHA-256 of each that a choice above comes from

    def to_toml(self) -> str:
        """The recipe as a TOML file, which `read_recipe` reads."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def make_recipe(values: dict[str, Any], where: str | Path = "recipe") -> Recipe:
    """A checked recipe from nested values, which come from the file or folder `where`.

    Raises UsageError naming the first key that is unknown (with the nearest valid one) or missing, or whose
    value does not fit.
    """
    try:
        return _checked(values, where)
    except AlphabarError:
        raise
    except Exception as error:  # values that nobody foresaw may lead to any error
        raise UsageError("recipes.unusable", problem=one_line(error)) from error


def _checked(values: dict[str, Any], where: str | Path) -> Recipe:
    _check_extensions(values.get("extensions") or [], where)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _usage_error(error) from None
    if recipe.condition.on not in (None, *CONDITIONS):
        raise unknown("condition", recipe.condition.on, CONDITIONS)
    check_method(recipe)
    codec = _codec_of_fitting_size(recipe)
    if recipe.coarse > 1 and (len(codec.spatial) != 2 or any(s % recipe.coarse for s in codec.spatial)):
        raise UsageError("recipes.coarse", coarse=recipe.coarse, sizes=" × ".join(map(str, codec.spatial)))
    _check_diffusion(recipe)
    if recipe.batch % recipe.accumulate:
        raise UsageError("recipes.accumulate", batch=recipe.batch, accumulate=recipe.accumulate)
    measures = recipe.monitor.levels and recipe.data.held_out and method_of(recipe).denoises
    if recipe.monitor.patience and not measures:
        raise UsageError("recipes.patience")
    return recipe.model_copy(update={"extensions": used_by(recipe.model_dump(mode="json"))})


def _check_extensions(records: Any, where: str | Path) -> None:
    """Raises UsageError for an extension that is not loaded, and for what is no list of extensions."""
    fits = isinstance(records, list) and all(
        isinstance(record, dict)
        and {"name", "sha256"} <= record.keys()
        and all(isinstance(value, str) for value in record.values())
        for record in records
    )
    if not fits:
        raise UsageError("recipes.bad_extensions", value=reprlib.repr(records))
    check_loaded(records, where)


def _codec_of_fitting_size(recipe: Recipe) -> CodecClass:
    """The codec of a recipe. Raises WrongSize where its network, or the autoencoder, cannot take the size."""
    try:
        codec = build_codec(recipe.data)
    except WrongSize as error:  # of the autoencoder; sizes that suit both are those to name
        codec = build_codec(recipe.data.model_copy(update={"size": error.reduction}))
    with without_memory():
        conditions = (("classes", 1),) if recipe.condition.on or recipe.data.augment else ()
        network = NETWORKS.build(recipe.network, channels=codec.channels, conditions=conditions)
    if isinstance(codec, LatentCodec):
        size = recipe.data.size
        network.check_size((size, size) if isinstance(size, int) else size, codec.reduction)
    else:
        network.check_size(codec.spatial)
    return codec


def _check_diffusion(recipe: Recipe) -> None:
    """Raises UsageError for settings of the diffusion that fail only when they are used."""
    schedule = SCHEDULES.build(recipe.schedule)
    NOISE_DISTRIBUTIONS.build(recipe.noise_distribution)(schedule, torch.full((1,), 0.5, dtype=torch.float64))
    TIMESTEPS.build(recipe.sampling.timesteps)(schedule, recipe.sampling.steps)
    if recipe.coarse == 1:
        return
    if not method_of(recipe).trains_denoiser:
        raise UsageError("recipes.coarse_method", coarse=recipe.coarse, method=recipe.method["name"])
    end = torch.ones(1, dtype=torch.float64)
    alpha, sigma = schedule(end)
    coeffs = PARAMETERIZATIONS.build(recipe.parameterization)(Level(alpha, sigma / recipe.coarse), end)
    if (factor := coeffs.c_out.abs().item()) > 1:  # by which the means of F come into the detail's error
        name = recipe.parameterization["name"]
        raise UsageError("recipes.coarse_parameterization", coarse=recipe.coarse, name=name, factor=factor)


def setting_keys() -> list[str]:
    """The keys of a recipe that a person may change, those of a section with its name before them."""
    keys = []
    for key, field in Recipe.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += [f"{key}.{setting}" for setting in inner.model_fields]
        elif key not in ("name", "extensions"):
            keys.append(key)
    return keys


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises AlphabarError where the file is missing or not TOML, UsageError naming it for what does not fit and
    where it is a pipe.
    """
    try:
        values = tomllib.loads(read_given_text(path))
    except FileNotFoundError:
        raise AlphabarError("recipes.missing", path=path) from None
    except (OSError, ValueError, RecursionError) as error:  # no text or no TOML are ValueErrors
        raise AlphabarError("recipes.unreadable", path=path, reason=one_line(error)) from None
    try:
        return make_recipe(values, path)
    except UsageError as error:
        raise UsageError("recipes.in_file", path=path, problem=error.message) from None


def _without_none(values: Any) -> Any:
    """The values without those that are None: TOML has no word for it, and a key left out means the same."""
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return [_without_none(value) for value in values] if isinstance(values, list) else values


def _usage_error(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    section, keys = _location(first["loc"])
    where = ".".join(keys)
    if where == "data.size":
        return UsageError("recipes.bad_size", value=repr(first["input"]))
    if first["type"] == "extra_forbidden":
        if inside := [key for key in setting_keys() if key.endswith(f".{where}")]:
            return UsageError("recipes.key_of_section", key=where, inside=" ".join(inside))
        return unknown("recipe key", where, [".".join([*keys[:-1], field]) for field in section.model_fields])
    if first["type"] == "missing" and any(isinstance(part, int) for part in first["loc"]):
        reason = message("validation.list")  # that has too few entries
        return UsageError("recipes.bad_value", key=where, value=repr(first["input"]), reason=reason)
    if first["type"] == "missing":
        return UsageError("recipes.missing_key", key=where)
    return UsageError("recipes.bad_value", key=where, value=repr(first["input"]), reason=problem_of(first))


def _location(parts: tuple[int | str, ...]) -> tuple[type[BaseModel], list[str]]:
    """The section that an error's location lies in, and the keys that lead to what is wrong."""
    section: type[BaseModel] = Recipe
    for at, part in enumerate(parts):
        field = section.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)) or at == len(parts) - 1:
            return section, [str(key) for key in parts[: at + 1]]
        section = inner
    return section, []
