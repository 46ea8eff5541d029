"""The foreign models that `peers.py` trains, each with everything that its own trainer does in an update."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import alphabar
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, generate, last_step
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.runs.model import build_denoiser

Shape = tuple[int, ...]
"""Of a signal: (channels, side, side)."""
LATENT, FACTOR = 4, 4  # channels of the peer's latents, and how much smaller their sides are


@dataclass
class Peer:
    """A foreign model with everything that its own trainer does in an update.

    loss: of signals (n, c, h, w). sample: a number -> signals, by the EMA of the weights where there is
    one. gflop: of one evaluation. learning_rate: (update, share of the time that is over) -> factor. fast:
    whether bf16 and channels_last may be used where they are faster.
    """

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    batch: int
    sample: Callable[[int], Tensor]
    nfe: int
    gflop: float
    clip: float | None = None
    learning_rate: Callable[[int, float], float] | None = None
    after_update: Callable[[], None] = lambda: None
    fast: bool = True


def gflop(call: Callable[[], Any]) -> float:
    """Of whatever the call computes."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def one_input(shape: Shape) -> tuple[Tensor, Tensor]:
    """x and t of one signal, for counting FLOPs."""
    return torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long)


def notebook(shape: Shape, steps: int) -> Peer:
    """The loop of the notebook: fp32, Adam at 1e-3, mean squared error of eps, no EMA."""
    denoiser = build_denoiser(alphabar.named_recipe("classic"))
    codec = ImageCodec(shape[-1])
    network, schedule = denoiser.network, denoiser.schedule

    def loss(x0: Tensor) -> Tensor:
        t = torch.randint(1, 301, (len(x0),), dtype=torch.float64) / 300
        eps = torch.randn_like(x0)
        level = schedule(t)
        alpha, sigma = (a.to(x0.dtype)[:, None, None, None] for a in (level.alpha, level.sigma))
        return F.mse_loss(network(alpha * x0 + sigma * eps, t.float()), eps)

    def sample(n: int) -> Tensor:
        steps_of_sampler = generate(
            denoiser,
            shape=shape,
            positions=range(n),
            seed=0,
            sampler=SAMPLERS.build("ddim"),
            times=TIMESTEPS.build("uniform")(schedule, steps),
            initial_noise=INITIAL_NOISES.build("standard_normal", statistics=None, codec=codec),
        )
        return last_step(steps_of_sampler).x

    return Peer(
        network,
        loss,
        torch.optim.Adam(network.parameters(), lr=1e-3),
        batch=128,
        sample=sample,
        nfe=steps,
        gflop=gflop(lambda: network(*one_input(shape))),
        fast=False,
    )


def denoising_diffusion_pytorch(shape: Shape, steps: int) -> Peer:
    """denoising-diffusion-pytorch as its README and Trainer have it, except for the number of DDIM steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=64, dim_mults=(1, 2, 4, 8))
    diffusion = GaussianDiffusion(network, image_size=shape[-1], timesteps=1000, sampling_timesteps=steps)
    ema = EMA(diffusion, beta=0.995, update_every=10)
    return Peer(
        network,
        lambda x0: diffusion((x0 + 1) / 2),
        torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99)),
        batch=16,
        sample=lambda n: 2 * ema.ema_model.sample(batch_size=n) - 1,
        nfe=steps,
        gflop=gflop(lambda: network(*one_input(shape))),
        clip=1.0,
        after_update=ema.update,
    )


def diffusers_peer(
    shape: Shape, network: Any, scheduler: Any, sampler: Any, steps: int, **settings: Any
) -> Peer:
    """A U-Net of diffusers with its EMA. settings: the rest of `Peer`."""
    from diffusers.training_utils import EMAModel

    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def loss(x0: Tensor) -> Tensor:
        t = torch.randint(0, 1000, (len(x0),))
        eps = torch.randn_like(x0)
        return F.mse_loss(network(scheduler.add_noise(x0, eps, t), t).sample.float(), eps)

    generator = torch.Generator().manual_seed(0)  # one for all batches of samples, or they would be equal

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        ema.store(network.parameters())
        ema.copy_to(network.parameters())
        x = torch.randn(n, *shape, generator=generator)
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            x = sampler.step(network(x, t).sample, t, x).prev_sample
        ema.restore(network.parameters())
        return x

    return Peer(
        network,
        loss,
        sample=sample,
        nfe=steps,
        gflop=gflop(lambda: network(*one_input(shape))),
        clip=1.0,
        after_update=lambda: ema.step(network.parameters()),
        **settings,
    )


def diffusers_example(shape: Shape, steps: int) -> Peer:
    """diffusers' train_unconditional.py with its defaults, except for the sampler's number of steps."""
    import diffusers

    plain, up = "DownBlock2D", "UpBlock2D"
    network: Any = diffusers.UNet2DModel(
        sample_size=shape[-1],
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=(plain, plain, plain, plain, "AttnDownBlock2D", plain),
        up_block_types=(up, "AttnUpBlock2D", up, up, up, up),
    )
    scheduler: Any = diffusers.DDPMScheduler(num_train_timesteps=1000)
    return diffusers_peer(
        shape,
        network,
        scheduler,
        diffusers.DDIMScheduler.from_config(scheduler.config),
        steps,
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        ),
        batch=16,
        # Its cosine over a hundred epochs has not begun to fall within the time that is given here.
        learning_rate=lambda update, _: min(1.0, (update + 1) / 500),
    )


def unet_of(shape: Shape, width: int) -> Any:
    """diffusers' U-Net of the tuned baseline, down to a side of 8 or less. width: its first channels.

    At 128 px the second resolution is no wider than the first, since that is where the arithmetic is.
    """
    import diffusers

    plain = max(3, int(math.log2(shape[-1] / 8)))
    factors = (1, 1, 2, 8, 8) if plain == 4 else (1, 2, 4, 4)
    return diffusers.UNet2DModel(
        sample_size=shape[-1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=1,
        block_out_channels=tuple(width * factor for factor in factors),
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=4,
        attention_head_dim=8,
    )


def nearest(excess: Callable[[int], float]) -> int:
    """The width, a multiple of 4, whose FLOPs are nearest to the budget."""
    return min(range(4, 132, 4), key=lambda width: abs(excess(width)))


def tuned_unet(shape: Shape, budget: float, learning_rate: float) -> Peer:
    """A tuned baseline of diffusers: a U-Net of about ``budget`` GFLOP, eps and a cosine."""
    import diffusers

    def excess(width: int) -> float:
        network = unet_of(shape, width)
        return gflop(lambda: network(*one_input(shape))) - budget

    network = unet_of(shape, nearest(excess))
    scheduler: Any = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    return diffusers_peer(
        shape,
        network,
        scheduler,
        # As diffusers advises for a cosine, which ends in pure noise, and for pixels, which have a range.
        diffusers.DPMSolverMultistepScheduler.from_config(
            scheduler.config, lambda_min_clipped=-5.1, thresholding=shape[0] == 3
        ),
        20,
        optimizer=torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4, fused=True),
        batch=32,
        learning_rate=falling,
    )


def falling(update: int, share: float) -> float:
    """A warm-up of 200 updates and a cosine, as a factor."""
    return min(1.0, (update + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def autoencoder(shape: Shape, budget: float) -> Peer:
    """diffusers' AutoencoderKL, f4 with 4 channels, whose decoder takes about ``budget`` GFLOP.

    Trained without downloaded networks: the absolute error, and the KL divergence at its usual 1e-6.
    """
    import diffusers

    def of(width: int) -> Any:
        return diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(width, 2 * width, 4 * width),
            layers_per_block=1,
            latent_channels=LATENT,
            norm_num_groups=4,
            sample_size=shape[-1],
        )

    latents = torch.zeros(1, LATENT, shape[1] // FACTOR, shape[2] // FACTOR)

    def excess(width: int) -> float:
        network = of(width)
        return gflop(lambda: network.decode(latents)) - budget

    network = of(nearest(excess))

    def loss(x0: Tensor) -> Tensor:
        found = network.encode(x0).latent_dist
        return F.l1_loss(network.decode(found.sample()).sample.float(), x0) + 1e-6 * found.kl().mean()

    return Peer(
        network,
        loss,
        torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True),
        batch=8,
        sample=lambda n: network.decode(torch.randn(n, *latents.shape[1:])).sample,
        nfe=1,
        gflop=gflop(lambda: network.decode(latents)),
        clip=1.0,
        learning_rate=falling,
    )
