"""Mending, filling and enlarging pictures with a model that was trained to draw them.

`restore` works on signals of any size; the rest reads pictures from files, knows how they were spoilt, and
puts the answers back on the disk with everything of the file that can be kept.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alphabar.data.decode import full_pixels, upright
from alphabar.data.folder import Folder
from alphabar.data.pixels import levels_to_signal, signal_to_levels, to_pictures
from alphabar.data.source import Unreadable, nothing_in
from alphabar.data.stamp import stamp
from alphabar.diffusion import GRIDS, Cond, Denoiser, FunctionDenoiser, Noise, Step, broadcast, clipped
from alphabar.diffusion.guidance import PerturbedAttention, guided
from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.registry import Spec
from alphabar.restoration import (
    OPERATORS,
    SOLVERS,
    Convolution,
    Each,
    Linear,
    Mask,
    Observation,
    Operator,
    Separable,
    Shape,
    crop,
    is_identity,
    then,
)
from alphabar.restoration.operators import LUMA, Spectral
from alphabar.training.checkpoint import pack_json
from alphabar.training.methods import check_denoises
from alphabar.training.run import Model

STEPS = 25
"""Of a restoration unless asked otherwise: twice as many measured no better (docs/results/restoration.md)."""
GUIDED = (0.0, 2.5)
"""The noise levels sigma/alpha at which perturbed attention acts: above them it brings nothing."""
WINDOWS = 64
"""Of a larger picture that are seen in one call: they take some GiB where a solver goes back through them."""
AGAIN = 0.3
"""The noise, sigma / alpha, from which an answer is made anew at a larger size."""
ROUNDING = 2 / 255 / math.sqrt(12)
"""The standard deviation of what is lost by rounding to 8 bits, in the units of [-1, 1]: 0.0023."""


# ---------------------------------------------------------------- restoring signals


@dataclass(frozen=True)
class Restored:
    """How far a restoration has come. The last record carries the answers."""

    done: int  # steps that are through, over all batches
    total: int
    step: Step  # of the batch: x and its xhat, in [-1, 1]
    x: Tensor | None = None  # (n, b, 3, h, w): n answers for each of the b pictures


@dataclass(frozen=True)
class Settings:
    """How pictures are restored: enough, with the model and y, to restore them again."""

    seed: int
    solver: dict[str, Any]
    steps: int
    pag: float = 0.0  # perturbed-attention guidance of the denoiser, which asks it twice; 0 is none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def settings(
    model: Model,
    operator: Operator,
    sigma_y: float,
    *,
    seed: int = 0,
    solver: Spec | None = None,
    steps: int | None = None,
    pag: float | None = None,
) -> Settings:
    """The settings of a restoration: what is asked for, and what measured best for the rest.

    Raises UsageError for unknown names, for steps below one, and for guidance that the model cannot give.
    """
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, not {steps}")
    own = model.recipe.sampling.pag if model.attention else 0.0
    pag = own * _guidance_share(operator, sigma_y) if pag is None else pag
    if pag and not model.attention:
        raise UsageError(f"--pag needs self-attention in the network: that of {model.path} has none")
    best = SOLVERS.resolve(solver or _best(operator, sigma_y, pag, model.recipe.data.size))
    return Settings(seed, best, steps or STEPS, pag)


def _guidance_share(operator: Operator, sigma_y: float) -> float:
    """The share of its guidance in drawing that helps the model to invent what is lost."""
    if _enlarges(operator):
        return 1.0
    spoiled = operator.measured == operator.shape and not isinstance(operator, Mask)
    blurred = spoiled and sigma_y > ROUNDING and not is_identity(operator)
    return 0.5 if blurred or not isinstance(operator, Linear) else 0.0


def _enlarges(operator: Operator) -> bool:
    """Whether pictures are to have more pixels than are known, of which each is a mean of theirs."""
    return isinstance(operator, Separable) and math.prod(operator.measured[1:]) < math.prod(
        operator.shape[1:]
    )


def _best(operator: Operator, sigma_y: float, pag: float, size: int) -> Spec:
    """The solver for a kind of task: by how near its pictures are in docs/results/restoration.md.

    size: of the model's pictures; of smaller ones the singular values are not known.
    """
    if not isinstance(operator, Linear):
        return "ddnm"
    if isinstance(operator, Mask):
        return "mmps"
    if isinstance(operator, Spectral) and min(operator.shape[1:]) >= size:
        if is_identity(operator) and sigma_y > ROUNDING:
            # With less fresh noise than the paper's answers are nearer; with less than this too smooth.
            return {"name": "ddrm", "eta": 0.8}
        if operator.measured == operator.shape:
            # All of the picture is in y: what noise hides is found mode by mode, what is missing is inferred.
            return "ddrm" if sigma_y > ROUNDING else "diffpir"
        if _enlarges(operator) and pag:
            return "ddrm"
    return "pigdm"


def restore(
    model: Model,
    y: Tensor | Sequence[Tensor],
    operator: Operator | Sequence[Linear],
    sigma_y: float = 0.0,
    *,
    n: int = 1,
    how: Settings | None = None,
    first: int = 0,
    batch: int = 16,
) -> Iterator[Restored]:
    """Pictures x of which y = A(x) + sigma_y·noise is known: n samples of p(x | y) for each of b pictures.

    y: signals (b, *operator.measured), sigma_y in the units of [-1, 1]. Or b of them, (1, …) or (…), with
        a linear operator for each in ``operator``.
    Pictures of another size than the model's are seen through overlapping windows (`windowed`).
    first: the number of the first picture in the whole set. Answer k to picture i depends on the model,
        the settings, y, i and k alone.

    Yields a record a step, and one more that carries the answers, (n, b, 3, h, w) in about [-1, 1].
    Raises UsageError for a GAN, a VAE or a shortened model, for shapes that do not fit and for a solver that
    cannot take the operator.
    """
    check_denoises(model.path, model.recipe, "restore pictures")
    if n < 1:
        raise UsageError(f"-n must be at least 1, not {n}")
    if isinstance(operator, Operator):
        operators, ys = None, y
        measured, shape = operator.measured, operator.shape
    else:
        operators = list(operator)
        shape = operators[0].shape
        ys, measured = list(y), ()
        if len(operators) != len(ys):
            raise UsageError(f"{len(ys)} pictures and {len(operators)} operators: give one a picture")
    if isinstance(ys, Tensor) and tuple(ys.shape[1:]) != tuple(measured):
        raise UsageError(f"y of shape {tuple(ys.shape)} given, the operator gives (n, {measured})")
    if shape[0] != 3:
        raise UsageError(f"the model draws colour pictures: the operator must take (3, h, w), not {shape}")
    if not sigma_y >= 0:
        raise UsageError(f"the noise must be 0 or more, not {sigma_y}")
    if how is None:
        one = Each(operators) if operators else operator
        how = settings(model, one, sigma_y)  # type: ignore[arg-type]
    return _restore(model, ys, operators or operator, sigma_y, shape, n, how, first, batch)


def _restore(model: Model, ys, operator, sigma_y: float, shape: Shape, n: int, how: Settings, first, batch):
    data = model.recipe.data
    shared = isinstance(operator, Operator)
    if max(shape[1:]) > data.size:
        # Windows fill a batch, and of masks that differ each picture needs others.
        seen = len(_corners(_holes(operator, sigma_y, data.size), data.size)) if shared else WINDOWS
        batch = max(1, WINDOWS // seen)
    jobs = [(i, k) for k in range(n) for i in range(len(ys))]
    walks = {i: _walks(model, operator if shared else operator[i], how) for i in range(len(ys))}
    total = sum(_count(how, times) for i, _ in jobs for _, times in walks[i])
    done, answers = 0, []
    for begin in range(0, len(jobs), batch):
        part = jobs[begin : begin + batch]
        if shared:
            A, y = operator, ys[[i for i, _ in part]]
        elif batch == 1:
            A, y = operator[part[0][0]], ys[part[0][0]].reshape(1, *operator[part[0][0]].measured)
        else:
            A = Each([operator[i] for i, _ in part])
            y = A.pack([ys[i] for i, _ in part])
        y = y.to(next(model.denoiser.parameters()).device)
        coarse: Tensor | None = None
        noise = Noise(how.seed, [((first + i) << 20) + k for i, k in part], "restore")
        for size, times in walks[part[0][0]]:
            known = Observation(A, y, sigma_y, bound=1.0)
            if size != A.shape[1:]:
                known = _shrunk(known, size)
            with torch.no_grad():
                for step in _walk(model, known, how, times, noise, coarse):
                    done += len(part)
                    yield Restored(done, total, step)
            x = step.x[..., : size[0], : size[1]]
            if sigma_y == 0 and isinstance(known.operator, Linear):
                x = known.operator.prox(x, known.y, 0.0)  # what is known for certain, to the last digit
            coarse, noise = x, replace(noise, purpose=noise.purpose + "/finer")
        if not torch.isfinite(x).all():
            raise AlphabarError(
                f"the answers of {model.path} are not finite: more steps or another solver may help"
            )
        answers.append(x.float().cpu())
    yield Restored(total, total, step, torch.cat(answers).reshape(n, len(ys), *shape))


def _walk(
    model: Model, known: Observation, how: Settings, times: Tensor, noise: Noise, coarse: Tensor | None
) -> Iterator[Step]:
    """Answers at one size. coarse: those at the size before, to begin with instead of the mean picture."""
    size, y, (h, w) = model.recipe.data.size, known.y, known.operator.shape[1:]
    guides = []
    if how.pag and model.attention:
        guides = [PerturbedAttention(model.attention.each_alone, how.pag, GUIDED)]
    # A mean of pictures lies in their range. A network's answer may not, and what leaves it is amplified.
    denoiser = clipped(guided(model.denoiser, guides))
    large = (3, max(h, size), max(w, size))
    margin = (0, large[2] - w, 0, large[1] - h)
    if large != (3, size, size):
        holes = _holes(known.operator, known.sigma_y, size)
        exact = isinstance(known.operator, Mask) and known.sigma_y == 0
        denoiser = windowed(denoiser, size, holes, F.pad(y, margin) if exact else None)
    A = _in(known.operator, large)
    # Where the schedule does not reach noise the start matters: noise around what y and the mean tell.
    guess = F.interpolate(model.statistics.mean[None].to(y), large[1:], mode="bilinear")
    guess = guess.expand(len(y), *large)
    if coarse is not None:
        guess = F.pad(F.interpolate(coarse, (h, w), mode="bicubic").clamp(-1, 1), margin, mode="replicate")
    guess = A.prox(guess, y, known.sigma_y**2 / 0.25) if isinstance(A, Linear) else A.pinv(y)
    level = denoiser.schedule(times[0])
    eps = replace(noise, purpose=noise.purpose + "/start").normal(0, guess)
    x = broadcast(level.alpha, guess) * guess + broadcast(level.sigma, guess) * eps
    yield from SOLVERS.build(how.solver)(denoiser, x, times, noise, known._replace(operator=A), None)


def _walks(model: Model, operator: Operator, how: Settings) -> list[tuple[tuple[int, int], Tensor]]:
    """The sizes at which a picture is restored, and on which times.

    Where a region is missing, or all colour, the whole tells what belongs there, and windows of a larger
    picture do not. It is found at the model's size, or the first at which it is more than a speck, then in
    steps of at most two from the answer before with noise of `AGAIN`. Of all else y tells what is where.
    """
    h, w = operator.shape[1:]
    size, times = model.recipe.data.size, _times(model, how.steps)
    scale = size / max(size, min(h, w))
    whole = (size, size) if model.recipe.data.fit == "squash" else (round(h * scale), round(w * scale))
    doublings = math.ceil(math.log2(max(h / whole[0], w / whole[1], 1)))
    shares = [i / doublings for i in range(doublings)]
    sizes = [(round(whole[0] ** (1 - s) * h**s), round(whole[1] ** (1 - s) * w**s)) for s in shares]
    least = max(8, size // 8)  # pixels of a hole that what is around it does not fill
    smaller = [(a, b) for a, b in sizes if _lacks(operator, least * h // a, least * w // b)]
    level = model.denoiser.schedule(times)
    late = times[min(int((level.sigma > AGAIN * level.alpha).sum()), len(times) - 2) :]
    return [(at, late if i else times) for i, at in enumerate([*smaller, (h, w)])]


def _shrunk(known: Observation, size: tuple[int, int]) -> Observation:
    """What is known of a picture at a smaller size: each pixel the mean of the known ones under it."""
    A = known.operator
    if isinstance(A, Separable):
        smaller = Separable((3, *size), colours=A.matrices[0])
        return known._replace(operator=smaller, y=F.interpolate(known.y, size, mode="area"))
    s = known.operator.s.to(known.y).expand(known.y.shape)  # type: ignore[attr-defined]
    share = F.interpolate(s, size, mode="area")
    y = F.interpolate(s * known.y, size, mode="area") / torch.where(share > 0, share, 1)
    return known._replace(operator=Mask((share > 0).cpu(), (3, *size)), y=y)


def _lacks(operator: Operator, rows: int, columns: int) -> bool:
    """Whether a region of a picture so large is missing, or the colour of all of it."""
    if isinstance(operator, Mask):
        known = (operator.s > 0).flatten(0, -3).float()
        known = F.max_pool2d(known, (min(rows, known.shape[1]), 1), stride=1)
        return not F.max_pool2d(known, (1, min(columns, known.shape[2])), stride=1).all()
    if isinstance(operator, Separable):
        colours, *sides = operator.matrices
        return colours is not None and sides == [None, None]
    return False


def _holes(operator: Operator, sigma_y: float, size: int) -> Tensor:
    """The pixels that are to be found, of one or of another picture: bool, at least size × size."""
    h, w = operator.shape[1:]
    holes = torch.ones(h, w, dtype=torch.bool)
    if isinstance(operator, Mask) and sigma_y == 0:
        holes = (operator.s == 0).flatten(0, -3).any(0)
    return F.pad(holes, (0, max(0, size - w), 0, max(0, size - h)))


def _times(model: Model, steps: int) -> Tensor:
    """Noise levels even in log SNR, whatever the model is sampled on, and one step for what hardly shows."""
    return GRIDS.build({"name": "log_snr", "sigma_min": 0.05})(model.denoiser.schedule, steps)


def _count(how: Settings, times: Tensor) -> int:
    """The denoiser evaluations of one walk."""
    return (len(times) - 1) * how.solver.get("repeats", 1)


def _in(operator: Operator, large: Shape) -> Operator:
    """The operator for a picture that lies at the top left of a larger one."""
    if operator.shape == large:
        return operator
    if isinstance(operator, Each):
        return Each([_in(one, large) for one in operator.operators])  # type: ignore[misc]
    return then(crop(large, *operator.shape[1:]), operator)


def windowed(
    denoiser: Denoiser, size: int, holes: Tensor | None = None, known: Tensor | None = None
) -> Denoiser:
    """The denoiser for pictures at least as large: the mean of what it says in overlapping windows.

    Windows are size × size and overlap by at least a quarter; each counts most in its middle and fades to its
    border, so that pictures have no seams. All of them walk together (Bar-Tal et al. 2023, MultiDiffusion).
    holes: (h, w) bool, the pixels that matter: windows without any are left out, and where there is none
        the answer is ``known``, a picture (n, c, h, w).
    """
    ramp = torch.minimum(torch.arange(size) + 0.5, size - torch.arange(size) - 0.5)
    weight = ramp[:, None] * ramp

    def function(x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        corners = _corners(torch.ones(x.shape[2:]) if holes is None else holes, size)
        shares = weight.to(x)
        total, mass = torch.zeros_like(x), x.new_zeros(x.shape[2:])
        for a, b in corners:
            mass[a : a + size, b : b + size] += shares
        per_call = max(1, WINDOWS // len(x))
        for i in range(0, len(corners), per_call):
            some = corners[i : i + per_call]
            windows = torch.cat([x[:, :, a : a + size, b : b + size] for a, b in some])
            conds = None if cond is None else cond.repeat(len(some), *[1] * (cond.ndim - 1))
            asked = (windows, t.repeat(len(some)), conds)
            # All that a backward pass needs of many windows is more than memory holds: it asks them again.
            many = len(corners) > per_call and torch.is_grad_enabled()
            said = checkpoint(denoiser, *asked, use_reentrant=False) if many else denoiser(*asked)
            for (a, b), D in zip(some, said.split(len(x))):
                total[:, :, a : a + size, b : b + size] += shares * D
        return total / mass if known is None else torch.where(mass > 0, total / mass.clamp(min=0.25), known)

    return FunctionDenoiser(denoiser.schedule, function)


def _corners(holes: Tensor, size: int) -> list[tuple[int, int]]:
    """The top left corners of the windows that show every hole, one at least."""
    spans = [torch.nonzero(holes.any(axis)).flatten().tolist() for axis in (1, 0)]
    if not spans[0]:
        return [(0, 0)]
    rows, columns = (_starts(n, size, span[0], span[-1] + 1) for n, span in zip(holes.shape, spans))
    return [(a, b) for a in rows for b in columns if holes[a : a + size, b : b + size].any()]


def _starts(length: int, size: int, begin: int, end: int) -> list[int]:
    """Where windows begin that cover [begin, end) and an eighth of their size around it, as far as there is.

    Evenly, at most three quarters of the size apart.
    """
    begin, end = max(0, begin - size // 8), min(length, end + size // 8)
    short = max(0, size - (end - begin))  # by what one window is wider
    begin = min(max(0, begin - short // 2), length - size)
    end = max(end, begin + size)
    count = 1 + math.ceil((end - begin - size) / (size * 3 // 4))
    return [round(i) for i in np.linspace(begin, end - size, count)]


def spread(x: Tensor) -> Tensor:
    """How far n answers (n, b, c, h, w) lie apart at each pixel: (b, h, w), standard deviations."""
    return x.std(0, correction=1).square().mean(1).sqrt()


def estimate_noise(y: Tensor, side: int = 4) -> float:
    """sigma_y of white noise in a signal (c, h, w), from the weakest directions of its side × side patches.

    Patches of a picture vary in few directions; in all others there is noise alone, of variance sigma_y².
    Of the variances, largest first, those are cut off until the mean of the rest is their median (Chen, Zhu
    & Heng 2015, algorithm 1). Raises UsageError for pictures too small to tell.
    """
    patches = F.unfold(y[None].double(), side)[0]
    d, count = patches.shape
    if count < 4 * d:
        raise UsageError(
            f"a picture of {y.shape[2]}×{y.shape[1]} is too small to estimate its noise: give --noise"
        )
    variances = torch.linalg.eigvalsh(patches.cov()).clamp(min=0).flip(0)
    for i in range(d):
        rest = variances[i:]
        if rest.mean() <= rest.median():
            break
    return rest.mean().sqrt().item()


# ---------------------------------------------------------------- degradations, as one writes them


def grammar() -> str:
    """How to write a degradation, in one line."""
    known = []
    for name in OPERATORS:
        values = OPERATORS.settings(name)
        known.append(name + (":" + ",".join(key.upper() for key in values) if values else ""))
    return (
        "write parts joined by +, applied from left to right, such as blur:1.5+noise:0.05; parts are "
        + " ".join([*known, "mask:FILE", "kernel:FILE", "noise:STD or noise:auto (last, in [-1, 1])"])
    )


@dataclass(frozen=True)
class Degradation:
    """What was done to a picture: parts in their order, then noise of std sigma; None is to be estimated."""

    text: str
    parts: tuple[dict[str, Any], ...]
    sigma: float | None

    def operator(self, shape: Shape) -> Operator:
        """A for pictures of shape (c, h, w). Raises UsageError where it does not fit them."""
        operator: Operator = Separable(shape)
        for part in self.parts:
            following = _build(part, operator.measured)  # type: ignore[arg-type]
            operator = following if is_identity(operator) else then(operator, following)
        return operator

    @property
    def factor(self) -> int:
        """How many times wider the picture was before."""
        return math.prod(part["factor"] for part in self.parts if "factor" in part)


def parse_degradation(text: str) -> Degradation:
    """A degradation such as "down:4", "blur:1.5+noise:0.05" or "jpeg:10" (`grammar`).

    Values follow the order of the operator's settings; those left out have their defaults. Raises
    UsageError, with the grammar, for what does not parse.
    """
    parts: list[dict[str, Any]] = []
    sigma: float | None = 0.0
    words = text.split("+")
    try:
        for i, word in enumerate(words):
            name, _, rest = word.strip().partition(":")
            if name == "noise":
                if i < len(words) - 1:
                    raise UsageError("noise comes last")
                sigma = _sigma(rest)
            elif name in ("mask", "kernel"):
                if not rest:
                    raise UsageError(f"{name} needs a file, {name}:FILE")
                parts.append({"name": name, "file": rest})
            elif name not in OPERATORS:
                raise unknown("degradation", name, [*OPERATORS, "noise", "mask", "kernel"])
            else:
                keys, values = list(OPERATORS.settings(name)), rest.split(",") if rest else []
                if len(values) > len(keys):
                    raise UsageError(f"{name} takes {len(keys)} values, not {len(values)}")
                parts.append(OPERATORS.resolve({"name": name, **dict(zip(keys, values))}))
    except UsageError as error:
        raise UsageError(f"degradation {text!r}: {error}; {grammar()}") from None
    return Degradation(text, tuple(parts), sigma)


def _sigma(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        raise UsageError(f"noise {text!r} is neither auto nor a standard deviation from 0, such as 0.05")
    return sigma


def _build(part: dict[str, Any], shape: Shape) -> Operator:
    if part["name"] == "mask":
        # White is missing, as painting programs and most inpainting tools have it.
        return Mask(1 - (_grey_file(part["file"]) >= 0.5).double()[None], shape)
    if part["name"] == "kernel":
        return Convolution(_grey_file(part["file"]), shape)
    return OPERATORS.build(part, shape=shape)()


def _grey_file(file: str) -> Tensor:
    photo = read_photo(Path(file))
    return (photo.signal(1)[0, 0].double() + 1) / 2


# ---------------------------------------------------------------- pictures in files


@dataclass(frozen=True)
class Photo:
    """A picture file, upright, and what of it is to be kept.

    pixels: (h, w, 3) uint8, or (h, w, 1) uint8 or uint16 where the file is grey.
    alpha: (h, w) uint8, where it has transparency. extras: what Pillow writes into the new file, EXIF and
    the colour profile.
    """

    name: str
    pixels: NDArray[Any]
    alpha: NDArray[np.uint8] | None
    extras: dict[str, Any]

    @property
    def grey(self) -> bool:
        return self.pixels.shape[2] == 1

    @property
    def white(self) -> int:
        return int(np.iinfo(self.pixels.dtype).max)

    def signal(self, channels: int = 3) -> Tensor:
        """(1, channels, h, w) in [-1, 1]; transparent pixels on white."""
        levels = torch.from_numpy(self.pixels.astype(np.int32))
        x = levels_to_signal(levels, self.white)
        if self.alpha is not None:
            opaque = torch.from_numpy(self.alpha.astype(np.float32)) / 255
            x = opaque * x + (1 - opaque)
        if channels == 1 and x.shape[1] == 3:
            return torch.einsum("c,nchw->nhw", LUMA.to(x), x)[:, None]
        return x.expand(-1, channels, -1, -1)

    def image(self, x: Tensor, known: Tensor | None = None, coloured: bool = False) -> Image.Image:
        """A signal (3, h, w) as a file of the same kind: grey, deep and transparent where this one is.

        known: (h, w) bool, pixels to take from this file as they are. coloured: a grey file becomes colour.
        """
        x, deep = x.cpu(), self.white > 255
        if self.grey and not coloured:
            x = torch.einsum("c,chw->hw", LUMA.to(x), x)[None]
        levels = signal_to_levels(x, 255 if coloured else self.white).numpy()
        alpha = self.alpha
        if known is not None:
            keep = known.cpu().numpy()
            levels = np.where(keep[..., None], self.pixels, levels)
            alpha = None if alpha is None else np.where(keep, alpha, 255).astype(np.uint8)
        if levels.shape[2] == 3:
            image = Image.fromarray(levels.astype(np.uint8))
        else:
            image = Image.fromarray(levels[..., 0].astype(np.uint16 if deep else np.uint8))
        if alpha is not None:
            transparency = Image.fromarray(alpha)
            if transparency.size != image.size:
                transparency = transparency.resize(image.size, Image.Resampling.BICUBIC)
            image.putalpha(transparency)
        return image


def read_photo(path: Path) -> Photo:
    """The picture in a file. Raises AlphabarError where it cannot be read as one."""
    try:
        data = path.read_bytes()
        image = upright(data)
        mode = image.mode
        extras = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
        if "exif" in extras:
            exif = image.getexif()
            exif.pop(ExifTags.Base.Orientation, None)
            extras["exif"] = exif.tobytes()
        alpha = None
        if mode.startswith("I;16"):
            return Photo(path.stem, np.array(image).astype(np.uint16)[..., None], None, extras)
        if mode in ("I", "F", "CMYK", "LAB", "YCbCr"):
            extras.pop("icc_profile", None)
            return Photo(path.stem, full_pixels(data), None, extras)
        if image.has_transparency_data:
            image = image.convert("LA" if mode in ("L", "LA") else "RGBA")
            alpha = np.array(image.getchannel("A"))
        grey = mode in ("1", "L", "LA")
        pixels = np.array(image.convert("L" if grey else "RGB"))
        return Photo(path.stem, pixels[..., None] if grey else pixels, alpha, extras)
    except OSError as error:
        raise AlphabarError(f"cannot read {path}: {error.strerror or error}") from None
    except Unreadable as reason:
        raise AlphabarError(f"{path} cannot be used: {reason}") from None


@dataclass(frozen=True)
class Task:
    """A picture file and what was done to it, ready for `restore`."""

    photo: Photo
    degradation: Degradation
    operator: Operator
    y: Tensor  # (1, *operator.measured)
    sigma_y: float  # with the rounding to 8 bits, where that matters

    @property
    def coloured(self) -> bool:
        """Whether it is colour that is asked for."""
        return any(part["name"] == "grey" for part in self.degradation.parts)

    @property
    def known(self) -> Tensor | None:
        """(h, w) bool: the pixels that are known exactly."""
        exact = isinstance(self.operator, Mask) and self.sigma_y == 0
        return self.operator.s[0] > 0 if exact else None  # type: ignore[attr-defined]


def read_task(path: Path, degradation: Degradation) -> Task:
    """A spoilt picture file with what is known of how it was spoilt.

    The noise is estimated where the degradation says so. Whatever is not merely masked was rounded to
    8 bits after it was spoilt, which is noise of standard deviation `ROUNDING`.
    """
    photo = read_photo(path)
    h, w = photo.pixels.shape[:2]
    operator = degradation.operator((3, h * degradation.factor, w * degradation.factor))
    exact = isinstance(operator, Mask) and degradation.sigma == 0
    if photo.grey and operator.measured[0] == 3 and isinstance(operator, Linear) and not exact:
        # One channel of noise, not three that are equal.
        to_grey = OPERATORS.build("grey", shape=operator.shape)()
        operator = then(to_grey, degradation.operator(to_grey.measured))
    y = photo.signal(operator.measured[0])
    if isinstance(operator, Mask):
        y = operator.A(y)
    sigma = degradation.sigma
    if sigma is None:
        if not isinstance(operator, Linear) or _masks(degradation):
            raise UsageError("the noise cannot be estimated through a mask or JPEG: give --noise a number")
        sigma = estimate_noise(y[0])
    elif sigma < ROUNDING and not isinstance(operator, Mask) and isinstance(operator, Linear):
        sigma = ROUNDING
    return Task(photo, degradation, operator, y, sigma)


def _masks(degradation: Degradation) -> bool:
    return any(part["name"] in ("mask", "box", "random", "strokes") for part in degradation.parts)


@dataclass(frozen=True)
class Degraded:
    """How many pictures are spoilt."""

    done: int
    total: int


def degrade(photo: Photo, degradation: Degradation, *, seed: int = 0, position: int = 0) -> Image.Image:
    """The picture spoilt, rounded to 8 bits; missing pixels are grey."""
    if degradation.sigma is None:
        raise UsageError("noise:auto is for restoring: say how much noise to add, such as noise:0.05")
    colour = not photo.grey or any(part["name"] in ("grey", "jpeg") for part in degradation.parts)
    x = photo.signal(3 if colour else 1)
    y = degradation.operator(tuple(x.shape[1:])).A(x)  # type: ignore[arg-type]
    y = y + degradation.sigma * Noise(seed, [position], "degrade").normal(0, y)
    levels = signal_to_levels(y[0], 255).numpy().astype(np.uint8)
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0])


def panels(task: Task, x: Tensor) -> Tensor:
    """What to look at, (k, h, w, 3) uint8: as it was given, the n answers (n, 3, h, w), their spread.

    The spread (of n > 1) is white where the answers lie furthest apart.
    """
    seen = F.interpolate(task.y.expand(-1, 3, -1, -1), x.shape[2:], mode="nearest")
    shown = [seen, x]
    if len(x) > 1:
        apart = spread(x[:, None])
        shown.append((2 * apart / apart.max().clamp(min=1e-6) - 1).expand(1, 3, -1, -1))
    return to_pictures(torch.cat(shown))


def write_answers(
    task: Task, x: Tensor, out: Path, about: dict[str, Any], overview: Mapping[str, Image.Image]
) -> None:
    """Write n answers (n, 3, h, w) as NAME-1.png …, each with its settings inside, and restoration.json.

    They are of the kind of the file they answer (`Photo.image`). overview: further images by name. The folder
    appears when all of it is written. Raises AlphabarError where it cannot be.
    """
    beside = out.with_name(f".writing-{out.name}")
    if len(x) > 1:
        apart = spread(x[:, None])
        about = {**about, "spread": {"mean": apart.mean().item(), "largest": apart.max().item()}}
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for k, answer in enumerate(x):
            image = task.photo.image(answer, task.known, task.coloured)
            info = stamp({**about, "answer": k})
            image.save(beside / f"{task.photo.name}-{k + 1}.png", pnginfo=info, **task.photo.extras)
        for name, image in overview.items():
            image.save(beside / f"{name}.png")
        (beside / "restoration.json").write_bytes(pack_json({**about, "n": len(x)}))
        beside.rename(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None


def degrade_all(paths: Sequence[Path], names: Sequence[str], degradation: Degradation, out: Path, seed: int):
    """Spoil picture files into a new folder as PNG files, picture i with noise of its own.

    Yields a record a picture. The folder appears when all of it is written; a picture that cannot be spoilt
    ends it with an AlphabarError that names it.
    """
    beside = out.with_name(f".writing-{out.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        for i, (path, name) in enumerate(zip(paths, names, strict=True)):
            target = (beside / name).with_suffix(".png")
            if target.exists():  # a.jpg beside a.png
                target = beside / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                degrade(read_photo(path), degradation, seed=seed, position=i).save(target)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from None
            yield Degraded(i + 1, len(paths))
        beside.rename(out)
    except OSError as error:
        raise AlphabarError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def picture_files(path: Path) -> tuple[list[Path], list[str]]:
    """The picture files that a path names, and what to call them: the file itself, or all in a folder.

    Raises AlphabarError where there is none.
    """
    if path.is_file():
        return [path], [path.name]
    if not path.is_dir():
        raise AlphabarError(f"there is no picture or folder at {path}")
    folder = Folder(path, None)
    if not folder.items:
        raise nothing_in(str(path), folder.skipped)
    names = [item.key for item in folder.items]
    return [path / name for name in names], names
