"""A recipe: everything that decides a training but the data. One TOML file, checked and complete."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alphabar.codecs import CODECS, build_codec
from alphabar.conditioning.fields import CONDITIONS
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS, WEIGHTS
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.guidance import resolve_guidance
from alphabar.methods.registry import METHODS, check_method
from alphabar.networks import NETWORKS

Settings = dict[str, Any]
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
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataSettings(Section):
    """How pictures become training signals."""

    codec: Codec = {"name": "image"}  # what a sample is
    size: Side | tuple[Side, Side] = 64  # the side of a square, or [height, width], in pixels
    channels: Literal[1, 3, 4] | None = None  # grey, RGB, RGBA; None: as the data has it, without alpha
    fit: Literal["squash", "crop", "box"] = "squash"
    flip: bool = True  # mirror half of the pictures left to right
    augment: float = Field(0, ge=0, le=1)  # probability to turn, stretch, enlarge, move each; samples are not
    held_out: float = Field(0.1, ge=0, lt=1)  # share kept for judging, by a hash of each file


class ConditionSettings(Section):
    """What the model may be asked for, of what the data knows about its pictures."""

    on: str | None = None  # class, attributes, text, clusters; None: nothing
    # Share of the pictures whose labels are hidden in training. Of several labels, half of the other pictures
    # show some only: each with probability one half. 0 hides none.
    drop: float = Field(0.1, ge=0, le=1)


class OptimizerSettings(Section):
    """Adam, AdamW or Muon; the learning rate warms up linearly, stays, then falls to zero."""

    name: Literal["adam", "adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    warm_up: int = Field(0, ge=0)  # images
    decay_from: float = Field(1.0, gt=0, le=1)  # share of the training after which the rate falls; 1 = never
    clip: float | None = Field(None, gt=0)  # largest norm of the gradient


class EmaSettings(Section):
    """The exponential moving average of the weights that sampling uses; half_life 0 means none."""

    half_life: int = Field(0, ge=0)  # images
    ramp: float = Field(0.05, gt=0)  # largest half-life as a share of the images seen
    snapshots: int = Field(0, ge=0)  # moments that are kept, from which other lengths can be had afterwards


class SamplingDefaults(Section):
    """How samples are drawn unless asked otherwise."""

    sampler: Sampler
    timesteps: Timesteps
    steps: int = Field(ge=1)
    initial_noise: InitialNoise = {"name": "standard_normal"}
    guidance: Guidance = []  # each with its name, scale and interval of noise levels sigma/alpha


class MonitorSettings(Section):
    """What is looked at while training. It never changes the weights."""

    share: float = Field(0.05, ge=0, lt=1)  # of the time at most
    samples: int = Field(16, ge=1)  # pictures from fixed noise
    levels: int = Field(16, ge=0)  # pictures a side (training, held-out) for the error per noise level
    distance: int = Field(128, ge=0)  # samples for the quick distance, 0 = none
    steps: int = Field(10, ge=1)  # of DPM-Solver++(2M), for grid and distance


class Recipe(Section):
    """All choices of a training, resolved: nothing is left to a default that could change later."""

    name: str
    data: DataSettings = DataSettings()
    method: Method = {"name": "diffusion"}
    condition: ConditionSettings = ConditionSettings()
    schedule: Schedule
    parameterization: Parameterization
    noise_distribution: NoiseDistribution
    stratified: bool = False  # levels spread evenly over each batch
    weight: Weight = {"name": "unit"}
    network: Network
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: EmaSettings = EmaSettings()
    sampling: SamplingDefaults
    monitor: MonitorSettings = MonitorSettings()
    batch: int = Field(128, ge=1)  # pictures an update, over all processes
    accumulate: int = Field(1, ge=1)  # pieces a batch is cut into where memory is short
    images: int = Field(ge=1)  # length of the training unless a budget is given
    seed: int = 0

    def to_toml(self) -> str:
        return tomli_w.dumps(_told(self.model_dump(mode="json")))


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A checked recipe from nested values.

    Raises UsageError naming the first key that is unknown (with the nearest valid one) or whose value
    does not fit.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _usage_error(error) from None
    if recipe.condition.on not in (None, *CONDITIONS):
        raise unknown("condition", recipe.condition.on, CONDITIONS)
    check_method(recipe)
    codec = build_codec(recipe.data)
    with torch.device("meta"):
        conditions = (("classes", 1),) if recipe.condition.on or recipe.data.augment else ()
        NETWORKS.build(recipe.network, channels=codec.channels, conditions=conditions).check_size(
            codec.spatial
        )
    if recipe.batch % recipe.accumulate:
        raise UsageError(
            f"batch = {recipe.batch} cannot be cut into accumulate = {recipe.accumulate} equal pieces"
        )
    return recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises AlphabarError where the file is missing or no TOML."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AlphabarError(f"there is no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AlphabarError(f"{path} is not a readable recipe: {error}") from None
    return make_recipe(values)


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, which TOML cannot say and what is left out means."""
    return {
        key: _told(value)
        if isinstance(value, dict)
        else [_told(v) if isinstance(v, dict) else v for v in value]
        if isinstance(value, list)
        else value
        for key, value in values.items()
        if value is not None
    }


def _usage_error(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    *parents, last = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = Recipe
        for parent in parents:
            model = model.model_fields[parent].annotation  # type: ignore[assignment]
        return unknown(
            "recipe key", ".".join([*parents, last]), [".".join([*parents, f]) for f in model.model_fields]
        )
    where = ".".join([*parents, last])
    return UsageError(f"recipe: {where} = {first['input']!r}: {first['msg'].lower()}")
