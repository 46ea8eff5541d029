"""TODO-DOC from training.methods"""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import count_nfe, last_step, unipc
from alphabar.diffusion.schedules import SCHEDULES, Schedule, broadcast
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import build_guidances, guidance_class, guided, resolve_guidance
from alphabar.guidance.base import evaluations_at
from alphabar.methods.base import network_flops
from alphabar.methods.diffusion import Diffusion
from alphabar.networks.base import Network
from alphabar.networks.layers import Attention
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


@dataclass(frozen=True)
class Teacher:
    """The model as it was before it is distilled, as its guidances see it (`GuidedModel`)."""

    denoiser: Denoiser
    attention: Attention | None
    vocabulary: Vocabulary | None
    early: Denoiser | None = None
    path: Path = Path("teacher")


class Distillation(Diffusion):
    """Tuning a trained denoiser to draw in a few large steps (Salimans and Ho 2022).

    A step of DDIM leads from x_t to x_s = (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) D. The
    model as it was, the teacher, walks from the same x_t to s in many small steps, with its guidance (Meng et
    al. 2023); learnt is the D that leads at once to where it arrives. Each batch is shared by all steps of
    the recipe's sampling, so the density of levels has no say.

    small: steps of the teacher in each of these. sigma_min: its last noise level sigma/alpha before 0.
    guidance: the specs of its guidances; those that its network cannot give are left out, as in sampling.
    """

    denoises = False
    fixed_sampling = True

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Any,
        runtime: Runtime,
        small: int = 3,
        sigma_min: float = 0.02,
        guidance: list[dict[str, Any]] | None = None,
    ):
        super().__init__(denoiser=denoiser, recipe=recipe, runtime=runtime)
        if small < 1 or not sigma_min > 0:
            raise UsageError(f"small = {small}, sigma_min = {sigma_min:g}: choose at least 1 and above 0")
        own, schedule = recipe.sampling, denoiser.schedule
        together = recipe.batch // (runtime.world_size * recipe.accumulate)
        if together < own.steps:
            raise UsageError(
                f"{together} pictures at a time cannot be shared by {own.steps} steps: raise batch"
            )
        self.times = TIMESTEPS.build(own.timesteps)(schedule, own.steps)
        if not schedule(self.times[0]).log_snr.isfinite():
            raise UsageError("steps from pure noise cannot be learnt: choose the grid log_snr")
        self.walks = [_walk(schedule, t, s, small, sigma_min) for t, s in pairwise(self.times)]
        self.guidance, self.conditional = resolve_guidance(guidance or []), recipe.condition.on is not None
        self.teacher: Network | None = None

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        if self.teacher is None:
            self.teacher = self.copy()

    def copy(self) -> Network:
        """The network as it is now, without what runs it compiled or in parallel."""
        network = next(m for m in self.denoiser.network.modules() if isinstance(m, Network))
        return deepcopy(network).eval().requires_grad_(False)

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        D, schedule = self.denoiser, self.denoiser.schedule
        assert self.teacher is not None
        teacher = self.guided(self.teacher)
        step = torch.arange(len(x0)) * len(self.walks) // len(x0)
        t, s = self.times[step], self.times[step + 1]
        x_t = diffuse(schedule, x0, t, eps)
        shares = step.bincount(minlength=len(self.walks)).tolist()
        conds = [None] * len(shares) if cond is None else cond.split(shares)
        with torch.no_grad():
            ends = [
                last_step(unipc(teacher, x, times, Noise(0, [], "distillation"), c)).x
                for x, times, c in zip(x_t.split(shares), self.walks, conds, strict=True)
                if len(x)
            ]
        level_t, level_s = schedule(t), schedule(s)
        kept = level_s.sigma / level_t.sigma
        target = torch.cat(ends) - broadcast(kept, x0) * x_t
        target = target / broadcast(level_s.alpha - level_t.alpha * kept, x0)
        error = (D(x_t, t, cond) - target).square().flatten(1).mean(1)
        # what a prediction of the network is off by, as in `loss`
        return error * (self.weight(level_t) / D.coeffs(t).c_out ** 2).to(error)

    def guided(self, teacher: Network) -> Denoiser:
        """The denoiser of that network, with its guidance."""
        D = NetworkDenoiser(teacher, self.denoiser.parameterization, self.denoiser.schedule)
        model = Teacher(D, teacher.middle_attention(), Vocabulary(()) if self.conditional else None)
        specs = [spec for spec in self.guidance if guidance_class(spec["name"]).available(model)]
        return guided(D, [g.bind(model, conditioned=self.conditional) for g in build_guidances(specs)])

    def files(self) -> dict[str, bytes]:
        return {"teacher.safetensors": pack_tensors((self.teacher or self.copy()).state_dict())}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self.teacher = self.copy()
        self.teacher.load_state_dict(unpack_tensors(files["teacher.safetensors"]))

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        settings, own = recipe.method, recipe.sampling
        schedule = SCHEDULES.build(recipe.schedule)
        guidances = build_guidances(settings["guidance"] or [])

        def each(ratio: float) -> int:
            return evaluations_at(ratio, guidances)

        walks = [
            _walk(schedule, t, s, settings["small"], settings["sigma_min"])
            for t, s in pairwise(TIMESTEPS.build(own.timesteps)(schedule, own.steps))
        ]
        asked = sum(count_nfe(unipc, schedule, walk, each) for walk in walks) / len(walks)
        return (3 + asked) * network_flops(recipe)


def _walk(schedule: Schedule, t: Tensor, s: Tensor, steps: int, sigma_min: float) -> Tensor:
    """Times (steps + 1,) from t down to s, even in log SNR; before s = 0 the last is at sigma_min."""
    first = -schedule(t).log_snr / 2
    if s > 0:
        log_sigma = torch.linspace(first, -schedule(s).log_snr / 2, steps + 1, dtype=torch.float64)[:-1]
    else:
        final = math.log(sigma_min)
        log_sigma = torch.linspace(first, final, steps, dtype=torch.float64) if first > final else first[None]
    return torch.cat([schedule.time(-2 * log_sigma), s[None]])
