"""Mending, filling and enlarging pictures with a model that was trained to draw them.

`restore` works on signals of any size; the rest reads pictures from files, knows how they were spoilt, and
puts the answers back on the disk with everything of the file that can be kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import Preview
from alphabar.errors import AlphabarError, UsageError
from alphabar.progress import Progress
from alphabar.restoration.operators.base import Linear, Operator, Shape
from alphabar.restoration.operators.compose import PerSampleOperator
from alphabar.restoration.settings import RestorationSettings, restoration_settings
from alphabar.restoration.solvers.base import Observation
from alphabar.restoration.tiling import WINDOWS, _corners, _holes, _shrunk, _walk, _walks
from alphabar.runs.model import Model


def restore(
    model: Model,
    y: Tensor | Sequence[Tensor],
    operator: Operator | Sequence[Linear],
    sigma_y: float = 0.0,
    *,
    n: int = 1,
    settings: RestorationSettings | None = None,
    first: int = 0,
    batch: int = 16,
) -> Iterator[Progress[Tensor]]:
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
    model.method.require_denoiser(model.path, "restore")
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
    if settings is None:
        one = PerSampleOperator(operators) if operators else operator
        settings = restoration_settings(model, one, sigma_y)  # type: ignore[arg-type]
    return _restore(model, ys, operators or operator, sigma_y, shape, n, settings, first, batch)


def _restore(
    model: Model,
    ys,
    operator,
    sigma_y: float,
    shape: Shape,
    n: int,
    settings: RestorationSettings,
    first,
    batch,
):
    data = model.recipe.data
    shared = isinstance(operator, Operator)
    if max(shape[1:]) > data.size:
        # Windows fill a batch, and of masks that differ each picture needs others.
        seen = len(_corners(_holes(operator, sigma_y, data.size), data.size)) if shared else WINDOWS
        batch = max(1, WINDOWS // seen)
    jobs = [(i, k) for k in range(n) for i in range(len(ys))]
    walks = {i: _walks(model, operator if shared else operator[i], settings) for i in range(len(ys))}
    total = sum(_count(settings, times) for i, _ in jobs for _, times in walks[i])
    done, answers = 0, []
    for begin in range(0, len(jobs), batch):
        part = jobs[begin : begin + batch]
        if shared:
            A, y = operator, ys[[i for i, _ in part]]
        elif batch == 1:
            A, y = operator[part[0][0]], ys[part[0][0]].reshape(1, *operator[part[0][0]].measured)
        else:
            A = PerSampleOperator([operator[i] for i, _ in part])
            y = A.pack([ys[i] for i, _ in part])
        y = y.to(next(model.denoiser.parameters()).device)
        coarse: Tensor | None = None
        noise = Noise(settings.seed, [((first + i) << 20) + k for i, k in part], "restore")
        for size, times in walks[part[0][0]]:
            known = Observation(A, y, sigma_y, bound=1.0)
            if size != A.shape[1:]:
                known = _shrunk(known, size)
            with torch.no_grad():
                for step in _walk(model, known, settings, times, noise, coarse):
                    done += len(part)
                    yield Progress("restoring", done, total, preview=Preview(0, step))
            x = step.x[..., : size[0], : size[1]]
            if sigma_y == 0 and isinstance(known.operator, Linear):
                x = known.operator.prox(x, known.y, 0.0)  # what is known for certain, to the last digit
            coarse, noise = x, replace(noise, purpose=noise.purpose + "/finer")
        if not torch.isfinite(x).all():
            raise AlphabarError(
                f"the answers of {model.path} are not finite: more steps or another solver may help"
            )
        answers.append(x.float().cpu())
    yield Progress(
        "restoring", total, total, torch.cat(answers).reshape(n, len(ys), *shape), preview=Preview(0, step)
    )


def _count(settings: RestorationSettings, times: Tensor) -> int:
    """The denoiser evaluations of one walk."""
    return (len(times) - 1) * settings.solver.get("repeats", 1)
