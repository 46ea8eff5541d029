"""deepinv (Tachella et al. 2025): its physics as our operators, our denoisers in its algorithms."""

from typing import Any

import torch
from torch import Tensor, nn

from alphabar.diffusion.denoiser import Denoiser
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Linear, Shape


class Physics(Linear):
    """A linear ``deepinv.physics`` object as an operator.

    Its A and adjoint are taken, its noise is not: sigma_y is given apart, in the units of [-1, 1]. What was
    measured in deepinv's usual units of [0, 1] must be brought over: y ← 2y - A(1), sigma_y ← 2 sigma_y.

    physics: with ``A`` and ``A_adjoint``. shape: of one picture, (c, h, w).
    Raises UsageError for what is not linear or measures complex numbers.
    """

    def __init__(self, physics: Any, shape: Shape):
        try:
            from deepinv.physics import LinearPhysics
        except ImportError:
            raise UsageError("deepinv's physics needs deepinv: pip install 'alphabar[deepinv]'") from None
        if not isinstance(physics, LinearPhysics):
            raise UsageError(f"{type(physics).__name__} is no linear physics of deepinv")
        measured = physics.A(torch.zeros(1, *shape))
        if measured.is_complex():
            raise UsageError(f"{type(physics).__name__} measures complex numbers: only real ones are taken")
        self.physics, self.shape, self.measured = physics, shape, tuple(measured.shape[1:])

    def A(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)


class DeepinvDenoiser(nn.Module):
    """A denoiser as deepinv's algorithms call theirs: ``denoiser(x, sigma)`` for pictures in [0, 1].

    sigma: the noise's standard deviation in those units, a number or one a picture; the schedule's time at
    which sigma / alpha is twice that is asked.
    """

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser  # an nn.Module, mostly: deepinv moves it between devices

    def forward(self, x: Tensor, sigma: float | Tensor, **_: Any) -> Tensor:
        schedule = self.denoiser.schedule
        std = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().flatten().expand(len(x))
        t = schedule.time(-2 * (2 * std).clamp(min=1e-4).log()).clamp(0, 1)
        alpha = broadcast(schedule(t).alpha, x)
        # Some of its algorithms walk in float64, whatever the network's type is.
        own = next((p.dtype for p in self.parameters()), x.dtype)
        return (self.denoiser((alpha * (2 * x - 1)).to(own), t, None).to(x.dtype) + 1) / 2
