"""`lean` against what people would otherwise use, on the same pictures, at equal time on this machine.

    pip install denoising-diffusion-pytorch diffusers
    python benchmarks/peers.py DATA --out runs/peers --minutes 60 --short 15 > docs/results/peers.md

Three get the full time: `lean`, `classic` in our trainer, and the expert's peer, a diffusers U-Net cut to
lean's FLOPs, whose learning rate is tuned beforehand. Three that have hardly begun by then get the short
time: the mission's notebook as written, denoising-diffusion-pytorch and diffusers' example at their
defaults. Each computes in bf16 and channels_last where that is faster here, the notebook excepted. Who is
done is kept in --out; an interrupted race goes on with the next.
"""

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import alphabar
from alphabar.codecs.image import ImageCodec, to_pictures, to_signal
from alphabar.data.dataset import Dataset, cache_root
from alphabar.diffusion.initial_noise import INITIAL_NOISES
from alphabar.diffusion.samplers import SAMPLERS, generate, last_step
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.images import image_grid
from alphabar.metrics.distances import frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS, extract
from alphabar.networks.base import flops
from alphabar.recipes.overrides import with_settings
from alphabar.runs.model import build_denoiser
from alphabar.runtime import Runtime
from alphabar.sampling.settings import nfe_per_sample
from alphabar.training.probe import bf16_refused, probe

SIZE = 64
RATES = (3e-4, 1e-3, 2e-3, 4e-3)  # among which the expert's learning rate is chosen, or what --rate says
SLOW = 5  # the peers that take long for a sample are judged on n / SLOW of them


@dataclass
class Peer:
    """A foreign model with all that its own trainer does in a step."""

    network: nn.Module
    loss: Callable[[Tensor], Tensor]  # of signals (n, 3, SIZE, SIZE) in [-1, 1]
    optimizer: torch.optim.Optimizer
    batch: int
    draw: Callable[[int], Tensor]  # a number -> signals, by the average of the weights where there is one
    evaluations: int
    gflop: float  # of one evaluation
    clip: float | None = None
    rate: Callable[[int, float], float] | None = None  # (step, share of the time) -> factor
    stepped: Callable[[], None] = lambda: None
    fast: bool = True  # bf16 and channels_last where they are faster


def gflop(call: Callable[[], Any]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def notebook(steps: int) -> Peer:
    """The loop that the mission's notebook has: fp32, Adam at 1e-3, mean squared error of eps, no average."""
    recipe = alphabar.named_recipe("classic")
    denoiser = build_denoiser(recipe)
    network, schedule = denoiser.network, denoiser.schedule

    def loss(x0: Tensor) -> Tensor:
        t = torch.randint(1, 301, (len(x0),), dtype=torch.float64) / 300
        eps = torch.randn_like(x0)
        level = schedule(t)
        alpha, sigma = (a.to(x0.dtype)[:, None, None, None] for a in (level.alpha, level.sigma))
        return F.mse_loss(network(alpha * x0 + sigma * eps, t.float()), eps)

    def sample(n: int) -> Tensor:
        times = TIMESTEPS.build("uniform")(schedule, steps)
        drawn = generate(
            denoiser,
            shape=(3, SIZE, SIZE),
            positions=range(n),
            seed=0,
            sampler=SAMPLERS.build("ddim"),
            times=times,
            initial_noise=INITIAL_NOISES.build("standard_normal", statistics=None, codec=None),
        )
        return last_step(drawn).x

    return Peer(
        network,
        loss,
        torch.optim.Adam(network.parameters(), lr=1e-3),
        128,
        sample,
        steps,
        flops(network, (SIZE, SIZE)) / 1e9,
        fast=False,
    )


def lucidrains(steps: int) -> Peer:
    """denoising-diffusion-pytorch as its README and its Trainer have it, but for the number of DDIM steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=64, dim_mults=(1, 2, 4, 8))
    diffusion = GaussianDiffusion(network, image_size=SIZE, timesteps=1000, sampling_timesteps=steps)
    average = EMA(diffusion, beta=0.995, update_every=10)
    x, t = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long)
    return Peer(
        network,
        lambda x0: diffusion((x0 + 1) / 2),
        torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99)),
        16,
        lambda n: 2 * average.ema_model.sample(batch_size=n) - 1,
        steps,
        gflop(lambda: network(x, t)),
        clip=1.0,
        stepped=average.update,
    )


def _diffusers(network: nn.Module, scheduler: Any, sampler: Any, steps: int, **settings: Any) -> Peer:
    from diffusers.training_utils import EMAModel

    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    x, t = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long)

    def loss(x0: Tensor) -> Tensor:
        t = torch.randint(0, 1000, (len(x0),))
        eps = torch.randn_like(x0)
        return F.mse_loss(network(scheduler.add_noise(x0, eps, t), t).sample.float(), eps)

    # Outside, or every batch is the first again.
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        average.store(network.parameters())
        average.copy_to(network.parameters())
        x = torch.randn(n, 3, SIZE, SIZE, generator=generator)
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            x = sampler.step(network(x, t).sample, t, x).prev_sample
        average.restore(network.parameters())
        return x

    return Peer(
        network,
        loss,
        draw=sample,
        evaluations=steps,
        gflop=gflop(lambda: network(x, t)),
        clip=1.0,
        stepped=lambda: average.step(network.parameters()),
        **settings,
    )


def example(steps: int) -> Peer:
    """diffusers' train_unconditional.py at its defaults, but for the sampler's number of steps."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    plain, up = "DownBlock2D", "UpBlock2D"
    network = UNet2DModel(
        sample_size=SIZE,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=(plain, plain, plain, plain, "AttnDownBlock2D", plain),
        up_block_types=(up, "AttnUpBlock2D", up, up, up, up),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    return _diffusers(
        network,
        scheduler,
        DDIMScheduler.from_config(scheduler.config),
        steps,
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        ),
        batch=16,
        # The cosine over a hundred epochs has not begun to fall by the time that is given here.
        rate=lambda step, _: min(1.0, (step + 1) / 500),
    )


def expert(budget: float, rate: float = 1e-3) -> Peer:
    """What one who knows would make of diffusers: a U-Net of about ``budget`` GFLOP, eps and a cosine."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

    x, t = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long)

    def built(width: int) -> nn.Module:
        return UNet2DModel(
            sample_size=SIZE,
            layers_per_block=1,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
        )

    def cost(network: nn.Module) -> float:
        return gflop(lambda: network(x, t))

    width = min(range(4, 68, 4), key=lambda width: abs(cost(built(width)) - budget))
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    network = built(width)
    return _diffusers(
        network,
        scheduler,
        # As diffusers advises for a cosine, which ends in pure noise, and for pixels, which have a range.
        DPMSolverMultistepScheduler.from_config(scheduler.config, lambda_min_clipped=-5.1, thresholding=True),
        20,
        optimizer=torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4, fused=True),
        batch=32,
        rate=lambda step, share: min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))),
    )


def batches(pictures: np.ndarray, of: np.ndarray, batch: int) -> Iterator[Tensor]:
    """Signals of the pictures at these places, a new order every epoch, half of them mirrored."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(of)
        for at in range(0, len(order) - batch + 1, batch):
            x = to_signal(torch.from_numpy(np.ascontiguousarray(pictures[np.sort(order[at : at + batch])])))
            mirrored = torch.from_numpy(rng.random(batch) < 0.5)
            yield torch.where(mirrored[:, None, None, None], x.flip(3), x)


def fastest(peer: Peer, x0: Tensor) -> torch.memory_format:
    """The memory format in which a pass forward and back is faster, timed on a few pictures."""
    seconds = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        peer.network.to(memory_format=layout)
        for _ in range(2):
            began = time.monotonic()
            peer.loss(x0.to(memory_format=layout)).backward()
            seconds[layout] = time.monotonic() - began
    return min(seconds, key=lambda layout: seconds[layout])


def drill(peer: Peer, data: Dataset, places: np.ndarray, seconds: float) -> int:
    """Train for so long; the number of pictures seen."""
    cast = torch.autocast("cpu", torch.bfloat16, enabled=peer.fast and bf16_refused("cpu") is None)
    peer.network.train()
    initial = [group["lr"] for group in peer.optimizer.param_groups]
    source = batches(data.items, places, peer.batch)
    layout = fastest(peer, next(source)[:4]) if peer.fast else torch.contiguous_format
    peer.network.to(memory_format=layout)
    began = told = time.monotonic()
    step = 0
    while (elapsed := time.monotonic() - began) < seconds:
        x0 = next(source).to(memory_format=layout)
        for group, lr in zip(peer.optimizer.param_groups, initial, strict=True):
            group["lr"] = lr * (peer.rate(step, elapsed / seconds) if peer.rate else 1.0)
        peer.optimizer.zero_grad()
        with cast:
            loss = peer.loss(x0)
        loss.backward()
        if peer.clip:
            nn.utils.clip_grad_norm_(peer.network.parameters(), peer.clip)
        peer.optimizer.step()
        peer.stepped()
        step += 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            left = (seconds - elapsed) / 60
            note(f"  {step * peer.batch:,} pictures, loss {loss.item():.4f}, {left:.0f} minutes left")
    peer.network.eval()
    return step * peer.batch


def run_peer(peer: Peer, data: Dataset, places: np.ndarray, minutes: float, n: int) -> dict[str, Any]:
    images = drill(peer, data, places, 60 * minutes)
    began = time.monotonic()
    x = torch.cat([peer.draw(min(50, n - at)) for at in range(0, n, 50)])
    return {
        "minutes": minutes,
        "images": images,
        "evaluations": peer.evaluations,
        "gflop": peer.gflop,
        "parameters": sum(p.numel() for p in peer.network.parameters()),
        "seconds": (time.monotonic() - began) / n,
        "pictures": to_pictures(x.clamp(-1, 1)),
    }


def run_ours(
    settings: list[str], name: str, data: Dataset, minutes: float, n: int, folder: Path, **sampling: Any
) -> dict[str, Any]:
    recipe = with_settings(alphabar.named_recipe(name), [*settings, "monitor.share=0"])
    denoiser = build_denoiser(recipe)
    runtime: Runtime = probe(denoiser.network, (SIZE, SIZE), batch=recipe.batch, try_compile=False)
    told = time.monotonic()
    for record in alphabar.train(data, alphabar.begin(folder, recipe), budget=60 * minutes, runtime=runtime):
        if record.loss is not None and time.monotonic() - told > 60:
            told = time.monotonic()
            note(f"  {record.images:,} pictures, loss {record.loss:.4f}, {record.eta / 60:.0f} minutes left")
    model = alphabar.load_model(folder)
    drawn = alphabar.sampling_settings(model, **sampling)
    began = time.monotonic()
    *_, sampled = alphabar.sample(model, n, drawn)
    return {
        "minutes": minutes,
        "images": model.images,
        "evaluations": nfe_per_sample(model, drawn),
        "gflop": flops(denoiser.network, (SIZE, SIZE)) / 1e9,
        "parameters": sum(p.numel() for p in denoiser.network.parameters()),
        "seconds": (time.monotonic() - began) / n,
        "pictures": sampled.result,
    }


def tuned(budget: float, data: Dataset, train: np.ndarray, held: np.ndarray, minutes: float) -> float:
    """The expert's learning rate with the least loss on held-out pictures after some minutes of each."""
    x0 = to_signal(torch.from_numpy(np.ascontiguousarray(data.items[np.sort(held)[:256]])))
    losses: dict[float, float] = {}
    for rate in RATES:
        torch.manual_seed(0)
        peer = expert(budget, rate)
        drill(peer, data, train, 60 * minutes)
        torch.manual_seed(1)
        with torch.no_grad():
            losses[rate] = float(torch.stack([peer.loss(x0) for _ in range(4)]).mean())
        note(f"  learning rate {rate:g}: held-out loss {losses[rate]:.5f}")
    return min(losses, key=lambda rate: losses[rate])


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True, help="a folder that keeps who is done")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, for those that get far")
    parser.add_argument("--short", type=float, default=15.0, help="of training, for the others")
    parser.add_argument("--tune", type=float, default=3.0, help="minutes for each of the expert's rates")
    parser.add_argument("--rate", type=float, help="the expert's learning rate, found before")
    parser.add_argument("--lean", default="network.widths=[32,64,128]", help="settings of lean")
    parser.add_argument("-n", type=int, default=500, help="samples judged")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of the slow ones")
    parser.add_argument("--only", nargs="*", help="run these and print nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    *_, prepared = alphabar.prepare(alphabar.open_source(args.data), ImageCodec(SIZE))
    data = prepared.result
    train, held = (np.sort(part) for part in data.split(alphabar.named_recipe("lean").data.held_out))
    lean = args.lean.split()
    budget = flops(build_denoiser(with_settings(alphabar.named_recipe("lean"), lean)).network, SIZE) / 1e9
    few = args.n // SLOW

    def the_expert() -> dict[str, Any]:
        rate = args.rate or tuned(budget, data, train, held, args.tune)
        torch.manual_seed(0)
        return {"rate": rate} | run_peer(expert(budget, rate), data, train, args.minutes, args.n)

    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "the notebook's loop": lambda: run_peer(notebook(args.steps), data, train, args.short, few),
        "denoising-diffusion-pytorch": lambda: run_peer(lucidrains(args.steps), data, train, args.short, few),
        "diffusers' example": lambda: run_peer(example(args.steps), data, train, args.short, few),
        "`classic` in our trainer": lambda: run_ours(
            [], "classic", data, args.minutes, few, args.out / "classic", sampler="ddim", steps=args.steps
        ),
        "the expert's peer": the_expert,
        "`lean`": lambda: run_ours(lean, "lean", data, args.minutes, args.n, args.out / "lean"),
    }
    extractor = EXTRACTORS.build("lite0", device="cpu")

    def features(pictures: Any) -> Tensor:
        *_, done = extract(extractor, torch.as_tensor(pictures), cache=cache_root() / "features")
        return done.result.features

    rows: dict[str, dict[str, Any]] = {}
    for i, (name, compete) in enumerate(contestants.items()):
        kept = args.out / f"{i}.json"
        if not kept.exists():
            if args.only and not any(part in name for part in args.only):
                continue
            note(name)
            torch.manual_seed(0)
            found = compete()
            pictures = found.pop("pictures")
            image_grid(pictures[:64]).save(args.out / f"{i}.png")
            real, fake = features(np.asarray(data.items[train])), features(pictures)
            distance = kid(fake, real)
            found |= {
                "n": len(pictures),
                "frechet": frechet_distance(fake, real),
                "kid": distance.value,
                "kid_error": distance.standard_error,
            }
            kept.write_text(json.dumps(found))
        rows[name] = json.loads(kept.read_text())
    if args.only:
        return
    print(f"# The peers\n\n```\npython benchmarks/peers.py {shlex.join(sys.argv[1:])}\n```\n")
    print(
        "| | parameters | GFLOP | minutes | pictures/s | pictures seen | evaluations a sample"
        " | s a sample | n | KID | Fréchet |"
    )
    print("|---" * 11 + "|")
    for name, f in rows.items():
        name = f"{name}, rate {f['rate']:g}" if "rate" in f else name
        print(
            f"| {name} | {f['parameters'] / 1e6:.1f} M | {f['gflop']:.2f} | {f['minutes']:g}"
            f" | {f['images'] / 60 / f['minutes']:.1f} | {f['images']:,} | {f['evaluations']}"
            f" | {f['seconds']:.2f} | {f['n']} | {f['kid']:.3f} ± {f['kid_error']:.3f} | {f['frechet']:.0f} |"
        )


if __name__ == "__main__":
    main()
