"""The generative adversarial network: what its critic and its generator learn."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.methods.base import (
    Choices,
    Method,
    build_encoder,
    encoder_flops,
    network_flops,
    require_single_process,
)
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_optimizer, pack_tensors, unpack_optimizer, unpack_tensors


class Gan(Method):
    """R3GAN (Huang et al. 2024): a relativistic pairing loss with zero-centred gradient penalties.

    The critic C learns to minimise softplus(C(G(z)) - C(x)), the generator softplus(C(x) - C(G(z))), of pairs
    of a generated and a real sample; the penalties R1 and R2 keep C flat around both. For small data sets C
    sees augmented samples, in ways that gradients pass (Zhao et al. 2020).

    gamma: of the penalties gamma/2 · E |grad C|², at least 0. every: updates between two penalties, which
    then count so many times (lazy regularisation, Karras et al. 2020), at least 1. augment: whether C sees
    augmented samples.
    """

    name = "gan"
    one_step = True
    networks = ("generator",)

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Choices,
        runtime: Runtime,
        gamma: Annotated[float, Field(ge=0, le=1e6)] = 1.0,
        every: Annotated[int, Field(ge=1, le=1_000_000)] = 4,
        augment: bool = True,
    ):
        require_single_process(Gan, runtime)
        self.generator, self.gamma, self.every, self.batch = denoiser.network, gamma, every, recipe.batch
        self.view = augmented if augment else lambda x: x
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.critic = build_encoder(recipe)
        runtime.place(self.critic)
        o = recipe.optimizer
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=o.learning_rate, betas=o.betas, fused=runtime.fused
        )
        self.runtime = runtime
        # The critic and its optimizer before the last update, where there was one.
        self._before: tuple[dict[str, Any], dict[str, Any]] | None = None

    def score(self, signals: Tensor) -> Tensor:
        """C of signals (n, ...), (n,)."""
        return self.critic(signals)[:, 0]

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> bool:
        """One update of the critic; none, and False, where its loss or gradient is not finite."""
        self._before = None
        self.optimizer.zero_grad(set_to_none=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with self.runtime.autocast():
            with torch.no_grad():
                generated = self.generator(eps, eps.new_ones(len(eps)))
            real, fake = self.view(x0.detach()), self.view(generated)
            lazy = images // self.batch % self.every == 0 and self.gamma > 0
            real.requires_grad_(lazy)
            fake.requires_grad_(lazy)
            c_real, c_fake = self.score(real), self.score(fake)
            value = F.softplus(c_fake - c_real).mean()
            if lazy:
                penalty = gradient_penalty(c_real, real) + gradient_penalty(c_fake, fake)
                value = value + self.every * self.gamma / 2 * penalty.mean()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), float("inf"))
        if not (torch.isfinite(value) and torch.isfinite(norm)):
            return False
        self._before = deepcopy((self.critic.state_dict(), self.optimizer.state_dict()))
        self.optimizer.step()
        return True

    def prepared_parameters(self) -> dict[str, nn.Parameter]:
        # The last bias adds the same to both scores of a pair, so it never has a gradient.
        named = self.critic.named_parameters()
        return {f"critic.{name}": parameter for name, parameter in named if name != "last.bias"}

    def undo_prepare(self) -> None:
        """Puts back the critic and its optimizer as they were before the last update."""
        if self._before:
            critic, optimizer = self._before
            self.critic.load_state_dict(critic)
            self.optimizer.load_state_dict(optimizer)
            self._before = None

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        generated = self.generator(eps, eps.new_ones(len(eps)))
        self.critic.requires_grad_(False)
        try:
            with torch.no_grad():
                c_real = self.score(self.view(x0))
            return F.softplus(c_real - self.score(self.view(generated)))
        finally:
            self.critic.requires_grad_(True)

    def state_files(self) -> dict[str, bytes]:
        return {
            "critic.safetensors": pack_tensors(self.critic.state_dict()),
            "critic_optimizer.safetensors": pack_optimizer(self.optimizer),
        }

    def load_state(self, files: Mapping[str, bytes]) -> None:
        self.critic.load_state_dict(unpack_tensors(files["critic.safetensors"]))
        unpack_optimizer(files["critic_optimizer.safetensors"], self.optimizer)

    @classmethod
    def training_flops(cls, recipe: Choices) -> float:
        """Generator: a pass for the critic, and forward and backward for itself, 4. Critic: forward and
        backward on a real and a generated sample, 6; for the generator forward on both and backward to the
        values of one, 3; and for the penalties, on both, backward to the values and backward through that, 4
        each.
        """
        every = recipe.method["every"] if recipe.method["gamma"] else float("inf")
        return 4 * network_flops(recipe) + (6 + 3 + 8 / every) * encoder_flops(recipe)


def gradient_penalty(c: Tensor, signals: Tensor) -> Tensor:
    """|grad C|² (n,) at signals (n, ...) of scores c (n,): R1 at real ones, R2 at generated ones."""
    (gradient,) = torch.autograd.grad(c.sum(), signals, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def augmented(x: Tensor) -> Tensor:
    """Images (n, c, h, w) with other colours, moved by up to an eighth and with a rectangle of half the sides
    set to zero: DiffAugment's "color,translation,cutout" (Zhao et al. 2020). Gradients pass."""
    n, _, h, w = x.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1, device=x.device, dtype=x.dtype).uniform_(low, high)

    x = x + uniform(-0.5, 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0, 2)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * uniform(0.5, 1.5)
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    down = torch.randint(-(h // 8), h // 8 + 1, (n, 1), device=x.device)
    right = torch.randint(-(w // 8), w // 8 + 1, (n, 1), device=x.device)
    inside = F.pad(x, (1, 1, 1, 1))
    y = (rows + down + 1).clamp(0, h + 1)[:, :, None]
    z = (columns + right + 1).clamp(0, w + 1)[:, None, :]
    x = inside[torch.arange(n, device=x.device)[:, None, None], :, y, z].permute(0, 3, 1, 2)
    top = torch.randint(0, h + 1, (n, 1), device=x.device)
    left = torch.randint(0, w + 1, (n, 1), device=x.device)
    cut = ((rows - top).abs() * 4 < h)[:, None, :, None] & ((columns - left).abs() * 4 < w)[:, None, None, :]
    return x.masked_fill(cut, 0.0)
