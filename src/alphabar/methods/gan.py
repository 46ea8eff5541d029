"""TODO-DOC from training.methods"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.errors import UsageError
from alphabar.methods.base import network_flops, require_single_process
from alphabar.methods.diffusion import Diffusion
from alphabar.networks.encoder_decoder import Encoder
from alphabar.runtime import Runtime
from alphabar.tensor_files import pack_optimizer, pack_tensors, unpack_optimizer, unpack_tensors

if TYPE_CHECKING:
    from alphabar.recipes.schema import Recipe


class Gan(Diffusion):
    """R3GAN (Huang et al. 2024): a relativistic pairing loss with zero-centred gradient penalties.

    The critic C learns to minimise softplus(C(G(z)) - C(x)), the generator softplus(C(x) - C(G(z))), of a
    drawn and a real picture side by side; C is held flat around both by R1 and R2. Pictures are augmented
    before C sees them, in ways that gradients pass (Zhao et al. 2020), for small data.

    gamma: of the penalties gamma/2 · E |grad C|². every: updates between two penalties, which then count so
    many times (lazy regularisation, Karras et al. 2020). augment: whether C sees augmented pictures.
    """

    denoises = False
    one_step = True
    networks = ("generator",)

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Any,
        runtime: Runtime,
        gamma: float = 1.0,
        every: int = 4,
        augment: bool = True,
    ):
        require_single_process("gan", runtime)
        if gamma < 0 or every < 1:
            raise UsageError(f"gamma = {gamma:g}, every = {every}: choose at least 0 and at least 1")
        self.generator, self.gamma, self.every, self.batch = denoiser.network, gamma, every, recipe.batch
        self.seen = augmented if augment else lambda x: x
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.critic = build_critic(recipe)
        runtime.place(self.critic)
        o = recipe.optimizer
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=o.learning_rate, betas=o.betas, fused=runtime.fused
        )
        self.runtime = runtime

    def judge(self, pictures: Tensor) -> Tensor:
        """C of pictures as they are seen, (n,)."""
        return self.critic(pictures)[:, 0]

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        """An update of the critic; none where its loss is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with self.runtime.autocast():
            with torch.no_grad():
                drawn = self.generator(eps, eps.new_ones(len(eps)))
            real, fake = self.seen(x0.detach()), self.seen(drawn)
            lazy = images // self.batch % self.every == 0 and self.gamma > 0
            real.requires_grad_(lazy)
            fake.requires_grad_(lazy)
            c_real, c_fake = self.judge(real), self.judge(fake)
            value = F.softplus(c_fake - c_real).mean()
            if lazy:
                penalty = gradient_penalty(c_real, real) + gradient_penalty(c_fake, fake)
                value = value + self.every * self.gamma / 2 * penalty.mean()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), float("inf"))
        if torch.isfinite(value) and torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        drawn = self.generator(eps, eps.new_ones(len(eps)))
        self.critic.requires_grad_(False)
        try:
            with torch.no_grad():
                c_real = self.judge(self.seen(x0))
            return F.softplus(c_real - self.judge(self.seen(drawn)))
        finally:
            self.critic.requires_grad_(True)

    def files(self) -> dict[str, bytes]:
        return {
            "critic.safetensors": pack_tensors(self.critic.state_dict()),
            "critic_optimizer.safetensors": pack_optimizer(self.optimizer),
        }

    def restore(self, files: Mapping[str, bytes]) -> None:
        self.critic.load_state_dict(unpack_tensors(files["critic.safetensors"]))
        unpack_optimizer(files["critic_optimizer.safetensors"], self.optimizer)

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        """FLOPs of training, a picture.

        Generator: a pass for the critic, and forward and backward for itself, 4. Critic: forward and backward
        on a real and a drawn picture, 6; for the generator forward on both and backward to the pixels of one,
        3; and for the penalties, on both, backward to the pixels and backward through that, 4 each.
        """
        every = recipe.method["every"] if recipe.method["gamma"] else float("inf")
        return 4 * network_flops(recipe) + (6 + 3 + 8 / every) * critic_flops(recipe)


def gradient_penalty(c: Tensor, pictures: Tensor) -> Tensor:
    """|grad C|² at each picture, (n,); R1 at real pictures (Mescheder et al. 2018), R2 at drawn ones."""
    (gradient,) = torch.autograd.grad(c.sum(), pictures, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def augmented(x: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) with other colours, moved by up to an eighth and with a square of half the side
    cut out: DiffAugment's "color,translation,cutout" (Zhao et al. 2020). Gradients pass."""
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


def build_critic(recipe: "Recipe") -> nn.Module:
    """The generator the other way round, to one number."""
    return Encoder(3, recipe.network["width"], recipe.network["blocks"], 1)


def critic_flops(recipe: "Recipe") -> int:
    with torch.device("meta"):
        encoder = build_critic(recipe)
        pictures = torch.empty(1, 3, recipe.data.size, recipe.data.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(pictures)
    return counter.get_total_flops()
