"""Posterior solvers: samplers that also know y = A(x0) + sigma_y·n, in terms of the denoiser alone.

All but DDRM are one walk with the same step, that of DDIM (Song et al. 2021, eq. 12) with xhat in the
place of the denoised picture D:

    x_s = alpha_s·xhat + sqrt(sigma_s² - c²)·(x_t - alpha_t·xhat)/sigma_t + c·z

and differ in xhat, which y has had its say in. Inside, z_t = x_t/alpha_t and sigma = sigma_t/alpha_t, so that
z_t = x0 + sigma·eps whatever the schedule, and J = dD/dz_t.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alphabar.diffusion import Cond, Denoiser, Level, Noise, Schedule, Step, broadcast
from alphabar.errors import UsageError
from alphabar.registry import Registry
from alphabar.restoration.operators import Linear, Operator, Separable, Spectral


class Observation(NamedTuple):
    """What is known: y (n, *operator.measured) = A(x0) + sigma_y·n, sigma_y in the units of [-1, 1].

    bound: the largest |x0| that there is. A mean of x0 is no larger, so xhat is clipped to it: what leaves
    the range is amplified from step to step where a network's Jacobian is not quite that of a denoiser.
    """

    operator: Operator
    y: Tensor
    sigma_y: float
    bound: float = math.inf

    def clipped(self, xhat: Tensor) -> Tensor:
        return xhat.clamp(-self.bound, self.bound)


Solver = Callable[[Denoiser, Tensor, Tensor, Noise, Observation, Cond | None], Iterator[Step]]
"""(denoiser, x, times, noise, observation, cond) -> steps; x (n, c, h, w) is at the level of times[0].

x0 of a step is xhat. Raises UsageError where the operator or the noise is not one the solver can take,
and where times begin at pure noise (alpha = 0).
"""


# ---------------------------------------------------------------- the walk that all share


class Move(NamedTuple):
    """One step of a walk, number i, from time t to s. first, second, third: numbers of its noises."""

    i: int
    t: Tensor
    s: Tensor
    level_t: Level
    level_s: Level
    draws: tuple[int, int, int]

    @property
    def sigma(self) -> float:
        """sigma_t / alpha_t."""
        return (self.level_t.sigma / self.level_t.alpha).item()

    def churn(self, eta: float) -> Tensor:
        """c of DDIM, eq. 16: 0 for eta = 0, that of ancestral sampling for eta = 1."""
        share = -torch.expm1(self.level_t.log_snr - self.level_s.log_snr)
        return eta * self.level_s.sigma * share.sqrt()


def _moves(
    schedule: Schedule, times: Tensor, pairs: Iterator[tuple[int, int]] | None = None
) -> Iterator[Move]:
    levels = [Level(*level) for level in zip(*schedule(times))]
    if levels[0].alpha == 0:
        raise UsageError("a posterior solver cannot begin at pure noise: choose the grid log_snr or karras")
    walk = list(pairs or ((i, i + 1) for i in range(len(times) - 1)))
    for i, (a, b) in enumerate(walk):
        draws = (i, len(walk) + i, 2 * len(walk) + i)
        yield Move(i, times[a], times[b], levels[a], levels[b], draws)


def _step(x: Tensor, xhat: Tensor, move: Move, c: Tensor, noise: Noise) -> Tensor:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = move.level_t, move.level_s
    eps = (x - broadcast(alpha_t, x) * xhat) / broadcast(sigma_t, x)
    x = broadcast(alpha_s, x) * xhat + broadcast((sigma_s**2 - c**2).clamp(min=0).sqrt(), x) * eps
    return x + broadcast(c, x) * noise.normal(move.draws[0], x) if c > 0 else x


def _denoise(denoiser: Denoiser, x: Tensor, move: Move, cond: Cond | None) -> Tensor:
    return denoiser(x, move.t.expand(len(x)), cond)


def _denoise_and_vjp(
    denoiser: Denoiser, x: Tensor, move: Move, cond: Cond | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D, and v → Jᵀv by a backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        D = _denoise(denoiser, x, move, cond)

    def vjp(v: Tensor) -> Tensor:
        return broadcast(move.level_t.alpha, v) * torch.autograd.grad(D, x, v, retain_graph=True)[0]

    return D.detach(), vjp


def _linear(observation: Observation, solver: str) -> Linear:
    if not isinstance(observation.operator, Linear):
        raise UsageError(f"solver {solver!r} takes linear degradations only: choose ddnm or dps")
    return observation.operator


# ---------------------------------------------------------------- the solvers


def ddnm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 0.85,
    travel: int = 1,
    repeats: int = 1,
) -> Iterator[Step]:
    """DDNM (Wang et al. 2022, algorithms 1 and 2): xhat = D + A⁺(y - A(D)), for y without noise.

    With a mask this is RePaint (Lugmayr et al. 2022). For a JPEG, A⁺ is the identity (Kawar et al. 2022b).
    travel, repeats: after every ``travel`` steps go back up and walk them again, ``repeats`` times in all.
    Raises UsageError for sigma_y above 0, which it would copy into the picture, unless A is not linear.
    """
    operator, y, sigma_y, _ = observation
    if sigma_y > 0 and isinstance(operator, Linear):
        raise UsageError(
            f"solver 'ddnm' is for pictures without noise, not {sigma_y:.3g}: choose diffpir or ddrm"
        )
    steps = len(times) - 1
    pairs = itinerary(steps, max(travel, 1), max(repeats, 1))
    for move in _moves(denoiser.schedule, times, pairs):
        if move.s > move.t:
            ratio = move.level_s.alpha / move.level_t.alpha
            added = (move.level_s.sigma**2 - (ratio * move.level_t.sigma) ** 2).sqrt()
            x = broadcast(ratio, x) * x + broadcast(added, x) * noise.normal(move.draws[0], x)
            continue
        D = _denoise(denoiser, x, move, cond)
        xhat = observation.clipped(D + operator.pinv(y - operator.A(D)))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)


def itinerary(steps: int, travel: int, repeats: int) -> Iterator[tuple[int, int]]:
    """Time travel as moves between the steps + 1 times of a grid: (i, i + 1) goes down, (j, i) back up."""
    for first in range(0, steps, travel):
        end = min(first + travel, steps)
        for repeat in range(repeats):
            if repeat:
                yield end, first
            yield from ((i, i + 1) for i in range(first, end))


def ddrm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> Iterator[Step]:
    """DDRM (Kawar et al. 2022, eq. 7 and 8): a walk of its own for each mode, by how well y knows it.

    Raises UsageError for an operator whose singular values are not known.
    """
    operator, (_, y, sigma_y) = _linear(observation, "ddrm"), observation[:3]
    if not isinstance(operator, Spectral):
        raise UsageError("solver 'ddrm' needs the singular values, not known here: choose diffpir or pigdm")
    s = operator.s.to(x)
    seen = s > 0
    sigma_seen = torch.where(seen, sigma_y / s, torch.inf)  # the noise of ybar, mode by mode
    ybar = torch.where(seen, operator.measure(y) / s, 0)
    modes = None
    for move in _moves(denoiser.schedule, times):
        sigma, sigma_s = move.sigma, (move.level_s.sigma / move.level_s.alpha).item()
        if modes is None:
            modes = operator.analyse(x / broadcast(move.level_t.alpha, x))
            known = sigma_seen < sigma
            modes = torch.where(
                known, ybar + (1 - (sigma_seen / sigma) ** 2).clamp(min=0).sqrt() * modes, modes
            )
            x = broadcast(move.level_t.alpha, x) * operator.synthesise(modes)
        D = _denoise(denoiser, x, move, cond)
        Dbar, z = operator.analyse(D), operator.analyse(noise.normal(move.draws[0], x))
        unseen = (modes - Dbar) / sigma
        noisy = torch.where(seen & (sigma_seen > 0), (ybar - Dbar) / sigma_seen, 0)
        down = Dbar + sigma_s * ((1 - eta**2) ** 0.5 * torch.where(seen, noisy, unseen) + eta * z)
        rest = (sigma_s**2 - (eta_b * sigma_seen) ** 2).clamp(min=0).sqrt()
        modes = torch.where(sigma_seen <= sigma_s, (1 - eta_b) * Dbar + eta_b * ybar + rest * z, down)
        x = broadcast(move.level_s.alpha, x) * operator.synthesise(modes)
        yield Step(move.i, move.s, x, D)


def diffpir(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    trust: float = 1.0,
    zeta: float = 0.3,
) -> Iterator[Step]:
    """DiffPIR (Zhu et al. 2023, algorithm 1): xhat is the picture between D and y.

    xhat = argmin ‖A x - y‖² + rho‖x - D‖², rho = trust·sigma_y²/sigma² (the paper's lambda is ``trust``).
    zeta: the share of fresh noise in each step, as variance.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "diffpir")
    for move in _moves(denoiser.schedule, times):
        D = _denoise(denoiser, x, move, cond)
        xhat = observation.clipped(linear.prox(D, y, trust * (sigma_y / move.sigma) ** 2))
        x = _step(x, xhat, move, zeta**0.5 * move.level_s.sigma, noise)
        yield Step(move.i, move.s, x, xhat)


def pigdm(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 1.0,
    data_std: float = 0.5,
) -> Iterator[Step]:
    """PiGDM (Song et al. 2023, eq. 7): xhat = D + sigma²·Jᵀ Aᵀ (r²·A Aᵀ + sigma_y²)⁻¹ (y - A D).

    r² = sigma²s²/(sigma² + s²), the variance of x0 given x_t were pixels independent of standard
    deviation s = data_std. The paper has s = 1. One backward pass a step.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "pigdm")
    for move in _moves(denoiser.schedule, times):
        D, vjp = _denoise_and_vjp(denoiser, x, move, cond)
        r2 = _guessed_variance(move.sigma, data_std)
        guide = linear.lift(y - linear.A(D), sigma_y**2 / r2) / r2
        xhat = observation.clipped(D + move.sigma**2 * vjp(guide))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)


def mmps(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 1.0,
    iterations: int = 2,
) -> Iterator[Step]:
    """MMPS (Rozet et al. 2024, algorithm 3): as PiGDM, with the denoiser's own covariance of x0, sigma²·J.

    xhat = D + sigma²·J Aᵀ v where (A sigma²J Aᵀ + sigma_y²) v = y - A D, by so many iterations of conjugate
    gradients. One backward pass each, and one more.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "mmps")
    for move in _moves(denoiser.schedule, times):
        D, vjp = _denoise_and_vjp(denoiser, x, move, cond)

        def covariance(v: Tensor, vjp=vjp, variance=move.sigma**2) -> Tensor:
            return linear.A(variance * vjp(linear.adjoint(v))) + sigma_y**2 * v

        v = _conjugate_gradients(covariance, y - linear.A(D), iterations)
        xhat = observation.clipped(D + move.sigma**2 * vjp(linear.adjoint(v)))
        x = _step(x, xhat, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, xhat)


def perturb_and_map(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    data_std: float = 0.5,
) -> Iterator[Step]:
    """Perturb and MAP (Papandreou & Yuille 2010) inside decoupled annealing (Zhang et al. 2024, algorithm 1).

    xhat is a sample of x0 given x_t and y where the first is N(D, r²), r² as in `pigdm`: the picture between
    D + r·e and y + sigma_y·e'. Then x_s = alpha_s·xhat + sigma_s·z. No backward pass.
    """
    _, y, sigma_y, _ = observation
    linear = _linear(observation, "perturb_and_map")
    for move in _moves(denoiser.schedule, times):
        D = _denoise(denoiser, x, move, cond)
        r2 = _guessed_variance(move.sigma, data_std)
        guess = D + r2**0.5 * noise.normal(move.draws[1], D)
        seen = y + sigma_y * noise.normal(move.draws[2], y) if sigma_y > 0 else y
        xhat = linear.prox(guess, seen, sigma_y**2 / r2)
        x = _step(x, xhat, move, move.level_s.sigma, noise)
        yield Step(move.i, move.s, x, xhat)


def dps(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 1.0,
    zeta: float = 1.0,
) -> Iterator[Step]:
    """DPS (Chung et al. 2022, algorithm 1): an ancestral step, then one of length zeta down ‖y - A(D)‖.

    Each picture has its own norm. The gradient's step is taken where the variance is preserved, as in the
    paper: on z_t/sqrt(1 + sigma²). Any operator with a gradient. One backward pass a step.
    """
    operator, y, _, _ = observation
    for move in _moves(denoiser.schedule, times):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            D = _denoise(denoiser, at, move, cond)
            misfit = (y - operator.A(D)).flatten(1).norm(dim=1)
            (slope,) = torch.autograd.grad(misfit.sum(), at)
        D = D.detach()
        units = torch.hypot(*move.level_t) * torch.hypot(*move.level_s)
        x = _step(x, D, move, move.churn(eta), noise) - broadcast(zeta * units, x) * slope
        yield Step(move.i, move.s, x, D)


def direct(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    observation: Observation,
    cond: Cond | None = None,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Plain denoising needs no solver: y is a noisy picture already, so sampling starts from it at sigma_y.

    As many steps as times has, from sigma_y down to a twentieth of it, evenly in log SNR, then to 0; eta as
    in DDIM. Raises UsageError where A is not the identity or there is no noise.
    """
    operator, y, sigma_y, _ = observation
    if not is_identity(operator) or not sigma_y > 0:
        raise UsageError("solver 'direct' is for plain denoising: noise, and nothing else")
    schedule = denoiser.schedule
    log_sigma = math.log(sigma_y) - torch.linspace(0, math.log(20), len(times) - 1, dtype=torch.float64)
    times = torch.cat([schedule.time(-2 * log_sigma), times[-1:]])
    x = broadcast(schedule(times[:1]).alpha, y) * y
    for move in _moves(schedule, times):
        D = _denoise(denoiser, x, move, cond)
        x = _step(x, D, move, move.churn(eta), noise)
        yield Step(move.i, move.s, x, D)


def is_identity(operator: Operator) -> bool:
    """Whether the operator leaves pictures as they are."""
    return isinstance(operator, Separable) and all(matrix is None for matrix in operator.matrices)


SOLVERS = Registry(
    "solver",
    {
        "ddnm": ddnm,
        "ddrm": ddrm,
        "diffpir": diffpir,
        "pigdm": pigdm,
        "mmps": mmps,
        "perturb_and_map": perturb_and_map,
        "dps": dps,
        "direct": direct,
    },
)


def _guessed_variance(sigma: float, data_std: float) -> float:
    return (sigma * data_std) ** 2 / (sigma**2 + data_std**2)


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """v with matrix·v = b for a symmetric matrix, (n, …), each picture with its own step lengths.

    A picture stops where it is solved, or where the matrix turns out not to be positive. Solved is to the
    digits that numbers have: where the matrix is singular, what is beyond them has any direction.
    """
    solved = max(1e-24, (10 * torch.finfo(b.dtype).eps) ** 2)

    def dot(u: Tensor, w: Tensor) -> Tensor:
        return (u * w).flatten(1).sum(1).reshape(-1, *[1] * (b.ndim - 1))

    v, r, p = torch.zeros_like(b), b, b
    first = last = dot(r, r)
    for _ in range(iterations):
        q = matrix(p)
        curvature = dot(p, q)
        sound = (curvature > 0) & (last > solved * first)
        step = torch.where(sound, last / curvature, 0)
        v, r = v + step * p, r - step * q
        last, before = dot(r, r), last
        p = r + torch.where(sound, last / before, 0) * p
    return v
