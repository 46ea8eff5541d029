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
    measured in deepinv's usual units of [0, 1] must be converted: y ← 2y - A(1), sigma_y ← 2 sigma_y.

    physics: with ``A`` and ``A_adjoint``. shape: of one image, (c, h, w).
    Raises UsageError where deepinv is not installed, and for physics that are not linear or measure complex
    numbers.
    """

    def __init__(self, physics: Any, shape: Shape):
        try:
            from deepinv.physics import LinearPhysics
        except ImportError:
            raise UsageError("restoration.deepinv_missing") from None
        if not isinstance(physics, LinearPhysics):
            raise UsageError("restoration.physics_not_linear", physics=type(physics).__name__)
        measured = physics.A(torch.zeros(1, *shape))
        if measured.is_complex():
            raise UsageError("restoration.physics_complex", physics=type(physics).__name__)
        self.physics, self.shape, self.measurement_shape = physics, shape, tuple(measured.shape[1:])

    def A(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)


class DeepinvDenoiser(nn.Module):
    """A denoiser as deepinv's algorithms call theirs: ``denoiser(x, sigma)`` for images in [0, 1].

    sigma: the standard deviation of the noise in those units, one number or one for each image. The
    denoiser is evaluated at the time at which the schedule's sigma / alpha is twice that.
    """

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser  # an nn.Module, mostly: deepinv moves it between devices

    def forward(self, x: Tensor, sigma: float | Tensor, **_: Any) -> Tensor:
        """The denoised images (n, c, h, w) in [0, 1]."""
        schedule = self.denoiser.schedule
        std = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().flatten().expand(len(x))
        t = schedule.time(-2 * (2 * std).clamp(min=1e-4).log()).clamp(0, 1)
        alpha = broadcast(schedule(t).alpha, x)
        # Some of deepinv's algorithms compute in float64, whatever the network's type is.
        own = next((p.dtype for p in self.parameters()), x.dtype)
        return (self.denoiser((alpha * (2 * x - 1)).to(own), t, None).to(x.dtype) + 1) / 2
