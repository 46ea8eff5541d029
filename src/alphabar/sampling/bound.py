"""Sampling settings bound to a model: what is loaded, checked and encoded once for all batches."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import Condition, Denoiser, NetworkDenoiser, without_condition
from alphabar.diffusion.initial_noise import INITIAL_NOISES, InitialNoise
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS, Preview, Sampler
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError
from alphabar.guidance import Guidance, build_guidances, evaluates_early, guided
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of
from alphabar.inference.recorded import describe_runtime
from alphabar.inference.runtime import PLAIN
from alphabar.memory import fitting_batch
from alphabar.messages import message
from alphabar.progress import Progress, last
from alphabar.runs.model import Model, load_model
from alphabar.sampling.settings import SamplingSettings, nfe_per_sample


@dataclass(frozen=True)
class BoundSettings:
    """Settings and the model that they are for.

    denoiser: the model's, with its guidances. vocabulary: what samples can be conditioned on.
    guidances: bound to the model.
    """

    model: Model
    settings: SamplingSettings
    denoiser: Denoiser
    vocabulary: Vocabulary | None
    guidances: Sequence[Guidance] = ()
    _rows: dict[int, Tensor] = field(default_factory=dict, repr=False)  # conditions that are encoded already

    @property
    def times(self) -> Tensor:
        """The times (steps + 1,) that the sampler visits, falling to 0."""
        return TIMESTEPS.build(self.settings.timesteps)(self.denoiser.schedule, self.settings.steps)

    @property
    def sampler(self) -> Sampler:
        """The sampler with its settings."""
        return SAMPLERS.build(self.settings.sampler)

    @property
    def initial_noise(self) -> InitialNoise:
        """What the sampler starts from."""
        model = self.model
        return INITIAL_NOISES.build(
            self.settings.initial_noise, statistics=model.statistics, codec=model.codec
        )

    def condition_rows(self, positions: range) -> Condition | None:
        """The conditions (n, columns) of the samples at these positions; None where there are none.

        Raises UsageError for a field or a value that the model does not know.
        """
        conditions = self.settings.conditions
        if not conditions:
            return None
        if self.vocabulary is None:
            raise UsageError("sampling.takes_no_condition", model=self.model.path)
        places = [position % len(conditions) for position in positions]
        for place in places:
            if place not in self._rows:
                self._rows[place] = self.vocabulary.row(conditions[place])
        return torch.stack([self._rows[place] for place in places]).to(self.model.device)

    def in_runtime(self, n: int, batch: int, precision: str) -> "BoundSettings":
        """The same, with the model computing as is fastest for n samples; one that was chosen before stays.

        precision: as in `choose_runtime`, which see for what is raised.
        """
        if runtime_of(self.model) is not None or not isinstance(self.model.denoiser, NetworkDenoiser):
            return self
        evaluations = n * nfe_per_sample(self.model, self.settings)
        early = evaluates_early(self.settings.guidance)
        records = choose_runtime(
            self.model, evaluations=evaluations, batch=batch, precision=precision, early=early
        )
        model = last(records)
        return self if runtime_of(model) == PLAIN else bind_settings(model, self.settings)

    @torch.no_grad()
    def fitting_batch(self, batch: int) -> int:
        """How many samples are generated at a time, at most ``batch``, in the memory that is free."""

        def run(n: int) -> None:
            x = torch.zeros(n, *self.model.shape, device=self.model.device)
            self.denoiser(x, self.times[:1].expand(n), self.condition_rows(range(n)))

        evaluations = 1 + len(self.settings.guidance)
        return fitting_batch(batch, self.model.shape, str(self.model.device), run, evaluations)

    def decode(self, x: Tensor) -> Tensor:
        """Signals (n, *shape) as items. Raises AlphabarError where they are not finite."""
        if not torch.isfinite(x).all():
            raise AlphabarError("sampling.not_finite", model=self.model.path)
        return self.model.codec.decode(x.cpu())

    @torch.no_grad()
    def run(
        self,
        x: Tensor,
        times: Tensor,
        noise: Noise,
        cond: Condition | None,
        *,
        denoiser: Denoiser | None = None,
        before: int = 0,
    ) -> Iterator[Progress[Tensor]]:
        """The sampler's steps from x (n, *shape) at times[0]: a record for each, and one with the items.

        denoiser: another than that of the settings. before: how many steps have been made already.
        """
        total = before + len(times) - 1
        for step in self.sampler(denoiser or self.denoiser, x, times, noise, cond):
            yield Progress(message("sampling.stage"), before + step.i + 1, total, preview=Preview(0, step))
        yield Progress(message("sampling.stage"), total, total, self.decode(step.x), Preview(0, step))


def bind_settings(model: Model, settings: SamplingSettings) -> BoundSettings:
    """Binds settings to a model, with the guidances that they name.

    Raises UsageError for a guidance that the model lacks the means for.
    """
    conditioned = bool(settings.conditions)
    guidances = [
        guidance.bind(model, conditioned=conditioned, load_model=lambda path: load_model(path, model.device))
        for guidance in build_guidances(settings.guidance)
    ]
    denoiser: Denoiser = model.denoiser
    vocabulary = model.vocabulary
    if vocabulary is None:  # the conditions are for the guidances alone
        denoiser = without_condition(denoiser)
        vocabulary = next((g.vocabulary for g in guidances if g.vocabulary is not None), None)
    interval = settings.guidance_interval
    return BoundSettings(
        model, settings, guided(denoiser, guidances, interval=interval), vocabulary, guidances
    )


def in_fastest_runtime(
    model: Model, n: int, *settings: SamplingSettings
) -> Iterator[Progress[tuple[Model, dict[str, Any]]]]:
    """The model as it computes n samples at a time with each of the settings fastest, and how, for their
    files: the last result.
    """
    evaluations = n * sum(nfe_per_sample(model, each) for each in settings)
    early = any(evaluates_early(each.guidance) for each in settings)
    for record in choose_runtime(model, evaluations=evaluations, batch=n, early=early):
        chosen = record.result
        result = None if chosen is None else (chosen, describe_runtime(chosen, n))
        yield Progress(record.stage, record.done, record.total, result, message=record.message)


def weights_fingerprint(model: Model, settings: SamplingSettings) -> str:
    """A SHA-256 of all weights that decide the samples: the model's and those of models that guide it."""
    own = model.fingerprint
    guiding = [
        load_model(spec["model"], "cpu").fingerprint for spec in settings.guidance if spec.get("model")
    ]
    return hashlib.sha256("".join([own, *guiding]).encode()).hexdigest() if guiding else own
