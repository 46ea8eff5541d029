"""Drawing pictures from a model, and putting them on the disk."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from alphabar.conditioning.conditioning import CAPTION
from alphabar.data.pixels import to_pictures
from alphabar.data.stamp import stamp
from alphabar.diffusion.denoiser import Cond, Denoiser, FunctionDenoiser
from alphabar.diffusion.grids import GRIDS
from alphabar.diffusion.guidance import (
    EVERYWHERE,
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from alphabar.diffusion.samplers import SAMPLERS, Step, draw, evaluations
from alphabar.diffusion.schedules import Schedule, broadcast
from alphabar.diffusion.start import STARTS
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.registry import Spec
from alphabar.training.checkpoint import pack_json
from alphabar.training.methods import diffuses, log_prob
from alphabar.training.run import Model, load_model


@dataclass(frozen=True)
class Sampled:
    """How far sampling has come. The last record carries the pictures."""

    done: int  # network evaluations that are through, over all batches
    total: int
    first: int  # number of the batch's first picture
    step: Step  # of the batch: x (n, 3, size, size) and the estimate x0, in [-1, 1]
    pictures: Tensor | None = None  # (n, size, size, 3) uint8


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn: enough, with the model, to draw them again."""

    seed: int
    sampler: dict[str, Any]
    grid: dict[str, Any]
    steps: int
    start: dict[str, Any]
    ask: Sequence[
        Mapping[str, str]
    ] = ()  # picture i is asked for entry i modulo their number; () for nothing
    guidance: float = 1.0  # classifier-free, 1 is none
    guidance_interval: tuple[float, float] | None = None  # sigma/alpha within which guidance acts
    sag: float = 0.0  # 0 is none
    pag: float = 0.0  # 0 is none
    pag_interval: tuple[float, float] | None = None  # sigma/alpha within which it acts, of the model's own
    autoguidance: float = 1.0  # 1 is none
    negative: str | None = None  # what guidance leads away from
    classifier: str | None = None  # the run or model folder of one that guides towards what is asked
    classifier_scale: float = 1.0  # 0 is none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Settings":
        """The inverse of `to_dict`, also after JSON and among other values. Raises UsageError for others."""
        try:
            known = {f.name: values[f.name] for f in fields(Settings) if f.name in values}
            how = TypeAdapter(Settings).validate_python(known)
        except ValidationError as error:
            raise UsageError(f"these are no settings of a sampling: {str(error).splitlines()[0]}") from None
        return replace(how, ask=tuple(dict(asked) for asked in how.ask))


class Strip:
    """Collects the reverse process of the first pictures: ten moments from noise to the end."""

    COLUMNS, ROWS = 10, 8

    def __init__(self, schedule: Schedule, steps: int):
        self.schedule = schedule
        self.chosen = {round(i * (steps - 1) / (self.COLUMNS - 1)) for i in range(self.COLUMNS)}
        self.columns: list[Tensor] = []  # each (rows, size, size, 3) uint8

    def watch(self, record: Sampled) -> Sampled:
        """Look at a record and hand it on."""
        if record.first == 0 and record.step.i in self.chosen and record.pictures is None:
            # Where the variance explodes x leaves the range of pictures; at variance one it is in sight.
            norm = torch.hypot(*self.schedule(record.step.t)).item()
            self.columns.append(to_pictures(record.step.x[: self.ROWS].cpu() / norm))
        return record


def settings(
    model: Model,
    *,
    seed: int = 0,
    sampler: Spec | None = None,
    grid: Spec | None = None,
    steps: int | None = None,
    start: Spec | None = None,
    ask: Sequence[Mapping[str, str]] | None = None,
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    sag: float = 0.0,
    pag: float | None = None,
    autoguidance: float = 1.0,
    negative: str | None = None,
    classifier: str | None = None,
    classifier_scale: float = 1.0,
) -> Settings:
    """The settings of a sampling: what is asked for, and the recipe's choice for the rest.

    A sampler other than the recipe's own brings the grid it works best on, unless one is given.
    ask: what picture i is asked for, by field of the model's conditioning: entry i modulo their number;
        () for nothing. By default every kind as often as the training pictures have it (`as_data`).
    negative: what guidance leads away from, a sentence or a class, instead of from nothing in particular.
    guidance, sag, pag, autoguidance, classifier_scale: scales of the guidances, see `diffusion.guidance`; pag
        is the recipe's choice too, with its noise levels unless guidance_interval says which, and none where
        the network has no attention in its middle.
    classifier: the folder of a model of the recipe classifier, which guides towards what is asked.
    Raises UsageError for unknown names, steps below one and a model that draws nothing; what the model can
    do, `sample` checks.
    """
    if model.recipe.method["name"] == "classifier":
        raise UsageError(
            f"{model.path} is a classifier and draws nothing: guide another model with it, --classifier"
        )
    own = model.recipe.sampling
    chosen = SAMPLERS.resolve(sampler) if sampler else own.sampler
    other = chosen["name"] != own.sampler["name"]
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    default_grid: Spec = own.grid
    if other:
        default_grid = "uniform" if chosen["name"] in ("ancestral", "ddim") else "linear_beta"
    default_steps = own.steps if not other else 250 if chosen["name"] == "ancestral" else 20
    if pag is None:
        pag = own.pag if model.attention else 0.0
    how = Settings(
        seed=seed,
        sampler=chosen,
        grid=GRIDS.resolve(grid or default_grid),
        steps=steps or default_steps,
        start=STARTS.resolve(start or own.start),
        ask=tuple(dict(asked) for asked in (as_data(model) if ask is None else ask)),
        guidance=guidance,
        guidance_interval=guidance_interval,
        sag=sag,
        pag=pag,
        pag_interval=own.pag_interval if pag and guidance_interval is None else None,
        autoguidance=autoguidance,
        negative=negative,
        classifier=classifier,
        classifier_scale=classifier_scale,
    )
    if model.recipe.method["name"] == "distillation" and (how.sampler, how.grid, how.steps) != (
        own.sampler,
        own.grid,
        own.steps,
    ):
        raise UsageError(
            f"{model.path} was shortened and draws in {own.steps} steps of its own:"
            " leave out sampler, grid and steps"
        )
    if not diffuses(model.recipe) and (how.sampler, how.grid, how.steps, how.start) != (
        own.sampler,
        own.grid,
        own.steps,
        own.start,
    ):
        raise UsageError(
            f"{model.path} is a {model.recipe.method['name']} and draws in one evaluation:"
            " leave out sampler, grid, steps and start"
        )
    return how


def asked_for(model: Model, how: Settings, positions: range) -> Cond | None:
    """The conditions (n, columns) of the pictures at these positions; None where nothing is asked.

    Raises UsageError for what the model does not know.
    """
    if not how.ask:
        return None
    vocabulary = model.conditioning
    if vocabulary is None and how.classifier:
        vocabulary = load_model(how.classifier).conditioning
    if vocabulary is None:
        raise UsageError(
            f"{model.path} was trained without conditions and can be asked for nothing:"
            " train one with --condition class, attributes, text or clusters"
        )
    places = [position % len(how.ask) for position in positions]
    rows = {place: vocabulary.request(how.ask[place]) for place in set(places)}
    return torch.stack([rows[place] for place in places]).to(next(model.denoiser.parameters()).device)


def as_data(model: Model) -> Sequence[Mapping[str, str]]:
    """What to ask for so that pictures are of every kind as often as the training pictures are.

    Nothing for a model without conditions.
    """
    return model.conditioning.seen if model.conditioning else ()


def asks_as_data(model: Model, how: Settings) -> bool:
    """Whether the settings ask for every kind as often as the training pictures have it."""
    return bool(how.ask) and how.ask == tuple(as_data(model))


def _away(model: Model, how: Settings) -> Cond | None:
    """The condition (columns,) that pictures are led away from."""
    if how.negative is None or model.conditioning is None:
        return None
    first = model.conditioning.fields[0].name
    row = model.conditioning.request({first if first in ("class", CAPTION) else CAPTION: how.negative})
    return row.to(next(model.denoiser.parameters()).device)


def guided_denoiser(model: Model, how: Settings) -> Denoiser:
    """The model's denoiser with the guidances that are asked for.

    Raises UsageError for one that the model lacks the means for, or an interval that is none.
    """
    interval, own = how.guidance_interval or EVERYWHERE, how.pag_interval or EVERYWHERE
    for name, (lo, hi) in (("--guidance-interval", interval), ("sampling.pag_interval", own)):
        if not 0 <= lo < hi:
            raise UsageError(f"{name} {lo:g},{hi:g}: the first must be below the second, from 0 up")
    guidances: list[Guidance] = []
    if how.guidance != 1:
        if not how.ask or model.conditioning is None:
            raise UsageError(
                "--guidance strengthens what is asked for: say what, with --class, --set or --prompt"
            )
        guidances.append(ClassifierFree(how.guidance, _away(model, how)))
    elif how.negative is not None:
        raise UsageError("--negative says what guidance leads away from: give --guidance above 1 too")
    if how.autoguidance != 1:
        if model.early is None:
            raise UsageError(f"--autoguidance needs an early snapshot, which {model.path} does not hold")
        guidances.append(Autoguidance(_unasked(model, model.early), how.autoguidance))
    if how.sag or how.pag:
        if model.attention is None:
            raise UsageError(
                f"--{'sag' if how.sag else 'pag'} needs self-attention in the middle of the network:"
                f" that of {model.path} has none"
            )
        if how.pag:
            guidances.append(PerturbedAttention(model.attention.each_alone, how.pag, own))
        if how.sag:
            guidances.append(SelfAttentionGuidance(model.attention.recorded, how.sag))
    if how.classifier:
        guidances.append(_classifier_guidance(model, how))
    return guided(_unasked(model, model.denoiser), guidances, interval=interval)


def passes(model: Model, how: Settings) -> int:
    """How often a picture goes through a network until it is drawn, what guidance asks included.

    Classifier guidance asks another network, which does not count.
    """
    lo, hi = how.guidance_interval or EVERYWHERE
    low, high = how.pag_interval or EVERYWHERE
    guides = (how.guidance != 1) + (how.autoguidance != 1) + bool(how.sag)

    def asked(ratio: float) -> int:
        return 1 + (lo < ratio <= hi) * (guides + bool(how.pag) * (low < ratio <= high))

    schedule = model.denoiser.schedule
    times = GRIDS.build(how.grid)(schedule, how.steps)
    return evaluations(SAMPLERS.build(how.sampler), schedule, times, asked)


def _unasked(model: Model, denoiser: Denoiser) -> Denoiser:
    """The denoiser; of a model without conditions one that only its guides hear what is asked of."""
    if model.conditioning is not None:
        return denoiser
    return FunctionDenoiser(denoiser.schedule, lambda x, t, cond: denoiser(x, t))


def _classifier_guidance(model: Model, how: Settings) -> ClassifierGuidance:
    """Raises UsageError for no classifier, one of other labels, and where nothing is asked."""
    assert how.classifier is not None
    if not how.ask:
        raise UsageError(
            "--classifier guides towards what is asked: say what, with --class, --set or --prompt"
        )
    device = next(model.denoiser.parameters()).device
    classifier = load_model(how.classifier, device)
    if classifier.recipe.method["name"] != "classifier":
        raise UsageError(
            f"--classifier {how.classifier}: a model of method {classifier.recipe.method['name']!r};"
            " train one with --recipe classifier --condition class or attributes"
        )
    if model.conditioning is not None and model.conditioning != classifier.conditioning:
        raise UsageError(
            f"{how.classifier} tells other labels than {model.path} takes: train both on the same"
        )

    def log_p(x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        assert cond is not None
        # The same picture with the same noise on it, at the time and scale of the classifier's schedule.
        level, own = model.denoiser.schedule(t), classifier.denoiser.schedule
        s = own.time(level.log_snr)
        return log_prob(classifier.denoiser, broadcast(own(s).alpha / level.alpha, x) * x, s, cond)

    return ClassifierGuidance(log_p, how.classifier_scale)


def sample(
    model: Model, n: int, how: Settings | None = None, *, first: int = 0, batch: int = 64
) -> Iterator[Sampled]:
    """Draw n pictures, number ``first`` and those that follow.

    Picture i depends on the model, the settings and i alone, not on n, ``first`` or ``batch``.

    Yields a record a sampler step, and one more that carries the pictures, (n, size, size, 3) uint8.
    Raises UsageError for n below one and, before anything is drawn, for what the model cannot be asked for
    or guided by; AlphabarError where the pictures are not finite.
    """
    if n < 1:
        raise UsageError(f"-n must be at least 1, not {n}")
    how = how or settings(model)
    asked_for(model, how, range(1))
    guided_denoiser(model, how)
    return _sample(model, n, how, first, batch)


def _sample(model: Model, n: int, how: Settings, begin: int, batch: int) -> Iterator[Sampled]:
    denoiser, size = guided_denoiser(model, how), model.recipe.data.size
    finished: list[Tensor] = []
    for first in range(0, n, batch):
        positions = range(begin + first, begin + min(first + batch, n))
        for step in draw(
            denoiser,
            shape=(3, size, size),
            positions=positions,
            seed=how.seed,
            sampler=SAMPLERS.build(how.sampler),
            times=GRIDS.build(how.grid)(denoiser.schedule, how.steps),
            start=STARTS.build(how.start, statistics=model.statistics),
            cond=asked_for(model, how, positions),
            device=next(model.denoiser.parameters()).device,
        ):
            done = first * how.steps + (step.i + 1) * len(positions)
            yield Sampled(done, n * how.steps, begin + first, step)
        if not torch.isfinite(step.x).all():
            raise AlphabarError(f"the samples of {model.path} are not finite: its training has diverged")
        finished.append(to_pictures(step.x.cpu()))
    yield Sampled(done, n * how.steps, begin + first, step, torch.cat(finished))


def compared(model: Model, how: Settings, key: str, values: Sequence[str]) -> list[Settings]:
    """The settings with one of them at each of several values: a guidance's scale, or a field to ask for.

    Raises UsageError for a key that is neither, and for a scale that is no number.
    """
    scales = ("guidance", "sag", "pag", "autoguidance", "classifier_scale")
    asked = [field.name for field in model.conditioning.fields] if model.conditioning else []
    variants = []
    for value in values:
        if key in asked:
            asks = [{}] if asks_as_data(model, how) else how.ask or [{}]
            variant = replace(how, ask=tuple({**ask, key: value} for ask in asks))
        elif key in scales:
            try:
                variant = replace(how, **{key: float(value)})  # type: ignore[arg-type]
            except ValueError:
                raise UsageError(f"--compare {key}: {value!r} is no number") from None
        else:
            raise unknown("thing to compare", key, [*scales, *asked])
        variants.append(variant)
    return variants


def check_free(out: Path) -> None:
    """Raises AlphabarError where a folder for new samples already holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AlphabarError(f"{out} is not empty: give a new --out folder, or remove it first")


def one_by_one(how: Settings, n: int) -> list[dict[str, Any]]:
    """What sets each of n pictures apart: its position, and what it is asked for."""
    return [{"position": i} | ({"ask": [how.ask[i % len(how.ask)]]} if how.ask else {}) for i in range(n)]


def side_by_side(
    drawn: Sequence[Tensor], variants: Sequence[Settings]
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The pictures (n, h, w, 3) of all variants as one set, noise by noise, and the settings of each."""
    rows = [[{**how.to_dict(), **own} for own in one_by_one(how, len(drawn[0]))] for how in variants]
    each = [variant for row in zip(*rows, strict=True) for variant in row]
    return torch.stack(list(drawn), dim=1).flatten(0, 1), each


def write_pictures(
    pictures: Tensor,
    out: Path,
    about: dict[str, Any],
    overview: Mapping[str, Image.Image],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write pictures as 000000.png …, each with its settings inside; beside them samples.json and overview/.

    each: what sets each picture's settings apart from ``about``; by default its position in the set.

    The folder appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    beside = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "overview").mkdir(parents=True)
        for i, picture in enumerate(pictures.numpy()):
            own = {"position": i} if each is None else each[i]
            Image.fromarray(picture).save(beside / f"{i:06d}.png", pnginfo=stamp({**about, **own}))
        for name, image in overview.items():
            image.save(beside / "overview" / f"{name}.png")
        (beside / "samples.json").write_bytes(pack_json({**about, "n": len(pictures)}))
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None
