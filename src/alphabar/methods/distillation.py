"""Progressive distillation: a trained denoiser learns to sample in few steps."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.loss import squared_error
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.samplers import count_nfe, last_step, unipc
from alphabar.diffusion.schedules import SCHEDULES, Schedule, broadcast
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import UsageError
from alphabar.guidance import build_guidances, guidance_class, guided, resolve_guidance
from alphabar.guidance.base import evaluations_at
from alphabar.methods.base import Choices, network_flops
from alphabar.methods.diffusion import Diffusion
from alphabar.networks.base import Network
from alphabar.networks.layers import Attention
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_tensors, unpack_tensors


@dataclass(frozen=True)
class Teacher:
    """The model as it was before it is distilled, as its guidances see it (`GuidedModel`)."""

    denoiser: Denoiser
    attention: Attention | None
    vocabulary: Vocabulary | None
    early: Denoiser | None = None
    path: Path = Path("teacher")


class Distillation(Diffusion):
    """Training a denoiser to sample in a few large steps (Salimans and Ho 2022).

    A step of DDIM leads from x_t to x_s = (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) D. The
    model as it was before, the teacher, goes from the same x_t to s in many small steps, with its guidance
    (Meng et al. 2023); learnt is the D that leads in one step to where the teacher arrives. Each batch is
    shared by all steps of the recipe's sampling, so the noise distribution has no effect.

    teacher_steps: steps of the teacher in each of these, at least 1. sigma_min: the teacher's last noise
    level sigma/alpha before 0, above 0. guidance: the specs of the teacher's guidances; those that its
    network cannot give are left out, as in sampling.
    """

    name = "distillation"
    denoises = False
    fixed_sampling = True
    needs_trained_weights = True

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Choices,
        runtime: Runtime,
        teacher_steps: Annotated[int, Field(ge=1, le=1000)] = 3,
        sigma_min: Annotated[float, Field(gt=0, le=1000)] = 0.02,
        guidance: list[dict[str, Any]] | None = None,
    ):
        super().__init__(denoiser=denoiser, recipe=recipe, runtime=runtime)
        own, schedule = recipe.sampling, denoiser.schedule
        together = recipe.batch // (runtime.world_size * recipe.accumulate)
        if together < own.steps:
            raise UsageError("methods.batch_below_steps", batch=together, steps=own.steps)
        self.times = TIMESTEPS.build(own.timesteps)(schedule, own.steps)
        if not schedule(self.times[0]).log_snr.isfinite():
            raise UsageError("methods.from_pure_noise")
        self.teacher_times = teacher_times(schedule, self.times, teacher_steps, sigma_min)
        self.guidance, self.conditional = resolve_guidance(guidance or []), recipe.condition.on is not None
        self.teacher: Network | None = None

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> bool:
        """Before the first update, keeps the network as it is as the teacher."""
        if self.teacher is None:
            self.teacher = self.copy()
        return True

    def copy(self) -> Network:
        """The network as it is now, without what runs it compiled or in parallel."""
        network = next(m for m in self.denoiser.network.modules() if isinstance(m, Network))
        return deepcopy(network).eval().requires_grad_(False)

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        D, schedule = self.denoiser, self.denoiser.schedule
        assert self.teacher is not None
        step = torch.arange(len(x0)) * len(self.teacher_times) // len(x0)
        t, s = self.times[step], self.times[step + 1]
        x_t = diffuse(schedule, x0, t, eps)
        end = self.teacher_end(x_t, step, cond)
        level_t, level_s = schedule(t), schedule(s)
        kept = level_s.sigma / level_t.sigma
        target = end - broadcast(kept, x0) * x_t
        target = target / broadcast(level_s.alpha - level_t.alpha * kept, x0)
        wrong = D(x_t, t, cond) - target
        # The error of the network's own prediction, as in `loss`.
        error = squared_error(D.coarse, wrong / broadcast(D.coeffs(t).c_out, wrong), wrong)
        return error * self.weight(level_t).to(error)

    @torch.no_grad()
    def teacher_end(self, x_t: Tensor, step: Tensor, cond: Condition | None) -> Tensor:
        """Where the teacher arrives from x_t (n, ...) at the end of each one's step (n,), ascending."""
        assert self.teacher is not None
        teacher = self.guided(self.teacher)
        shares = step.bincount(minlength=len(self.teacher_times)).tolist()
        conds = [None] * len(shares) if cond is None else cond.split(shares)
        ends = [
            last_step(unipc(teacher, x, times, Noise(0, [], Purpose.TEACHER), c)).x
            for x, times, c in zip(x_t.split(shares), self.teacher_times, conds, strict=True)
            if len(x)
        ]
        return torch.cat(ends)

    def guided(self, teacher: Network) -> Denoiser:
        """The denoiser of that network, with the teacher's guidance."""
        D = self.denoiser.with_network(teacher)
        model = Teacher(D, teacher.middle_attention(), Vocabulary(()) if self.conditional else None)
        specs = [spec for spec in self.guidance if guidance_class(spec["name"]).available(model)]
        return guided(D, [g.bind(model, conditioned=self.conditional) for g in build_guidances(specs)])

    def state_files(self) -> dict[str, bytes]:
        return {"teacher.safetensors": pack_tensors((self.teacher or self.copy()).state_dict())}

    def load_state(self, files: Mapping[str, bytes]) -> None:
        self.teacher = self.copy()
        self.teacher.load_state_dict(unpack_tensors(files["teacher.safetensors"]))

    @classmethod
    def training_flops(cls, recipe: Choices) -> float:
        settings, own = recipe.method, recipe.sampling
        schedule = SCHEDULES.build(recipe.schedule)
        guidances = build_guidances(settings["guidance"] or [])

        def evaluations(ratio: float) -> int:
            return evaluations_at(ratio, guidances)

        times = TIMESTEPS.build(own.timesteps)(schedule, own.steps)
        trajectories = teacher_times(schedule, times, settings["teacher_steps"], settings["sigma_min"])
        nfe = sum(count_nfe(unipc, schedule, each, evaluations) for each in trajectories)
        return (3 + nfe / len(trajectories)) * network_flops(recipe)


def teacher_times(schedule: Schedule, times: Tensor, steps: int, sigma_min: float) -> list[Tensor]:
    """For each step between two of the times (k + 1,) the times of the teacher, descending, even in log SNR.

    They are (steps + 1,); in the step down to 0 the last but one has the noise level sigma/alpha = sigma_min.
    """
    found = []
    for t, s in pairwise(times):
        first = -schedule(t).log_snr / 2
        if s > 0:
            last = -schedule(s).log_snr / 2
            log_sigma = torch.linspace(first, last, steps + 1, dtype=torch.float64)[:-1]
        elif first > math.log(sigma_min):
            log_sigma = torch.linspace(first, math.log(sigma_min), steps, dtype=torch.float64)
        else:
            log_sigma = first[None]
        found.append(torch.cat([schedule.time(-2 * log_sigma), s[None]]))
    return found
