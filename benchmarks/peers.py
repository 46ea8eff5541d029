"""How does alphabar compare with what people would otherwise use, at equal time?

    pip install denoising-diffusion-pytorch diffusers
    python benchmarks/peers.py stanford_cars --out runs/peers --minutes 60 --short 15 -n 500
    python benchmarks/peers.py stanford_cars --out runs/peers_128 --size 128 --minutes 45 -n 500

Prints section 2 of docs/results/quality_vs_compute.md. Three trainings get the full time: `lean`, `classic`
in alphabar's trainer, and a tuned baseline, diffusers' U-Net reduced to the FLOPs of `lean`, whose learning
rate is chosen beforehand. Three that have hardly begun by then get the short time: a student's DDPM notebook
as it is written, denoising-diffusion-pytorch and diffusers' example, both with their default settings. With
``--size 128`` it prints a section of larger_images.md: `nested`, the tuned baseline, and diffusers'
autoencoder with the tuned U-Net on its latents. Each computes in bf16 and channels_last where that is faster
here, except for the notebook. The time of foreign models is that at work of the thread that trains, which
other programs hardly change. Results are kept in ``--out``: an interrupted benchmark goes on with the next.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import alphabar
from alphabar.codecs import build_codec
from alphabar.codecs.image import ImageCodec
from alphabar.codecs.latent import decoding_flops
from alphabar.data.dataset import Dataset
from alphabar.images import image_grid
from alphabar.metrics.distances import frechet_distance, kid
from alphabar.metrics.features import EXTRACTORS
from alphabar.networks.base import Network, flops
from alphabar.progress import last
from alphabar.recipes.schema import Recipe
from alphabar.runs.model import build_denoiser
from alphabar.sampling.settings import nfe_per_sample
from alphabar.training.first_stage import SHARE
from alphabar.training.probe import bf16_refused, probe
from common import (
    argument_parser,
    compute_features,
    load_dataset,
    note,
    print_command,
    print_paragraph,
    print_section,
    print_table,
)
from peer_models import (
    Peer,
    autoencoder,
    denoising_diffusion_pytorch,
    diffusers_example,
    notebook,
    tuned_unet,
)

LEARNING_RATES = (3e-4, 1e-3, 2e-3, 4e-3)  # of which the tuned U-Net gets the best, or what --rate says
SLOW_SHARE = 5  # those that take long for a sample are evaluated on n / SLOW_SHARE of them
BATCH_OF_SAMPLES = 50


# Training


def network_of(recipe: Recipe) -> Network:
    """The untrained network of a recipe."""
    network = build_denoiser(recipe).network
    assert isinstance(network, Network)
    return network


Batches = Callable[[int], Iterator[Tensor]]
"""Signals in batches of a size, without end."""


def batches(codec: ImageCodec, items: NDArray, index: NDArray, batch: int) -> Iterator[Tensor]:
    """Signals of these pictures, a new order every epoch, half of them mirrored."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(index)
        for first in range(0, len(order) - batch + 1, batch):
            chosen = np.sort(order[first : first + batch])
            x = codec.encode(torch.from_numpy(np.ascontiguousarray(items[chosen])))
            mirrored = torch.from_numpy(rng.random(batch) < 0.5)
            yield torch.where(mirrored[:, None, None, None], x.flip(3), x)


def batches_of_latents(latents: Tensor, batch: int) -> Iterator[Tensor]:
    """Latents (2, n, c, h, w), of pictures and of mirrored ones, in a new order every epoch."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(latents.shape[1])
        for first in range(0, len(order) - batch + 1, batch):
            yield latents[rng.integers(0, 2, batch), order[first : first + batch]]


def use_layout(network: nn.Module, layout: torch.memory_format) -> None:
    network.to(memory_format=layout)  # type: ignore[call-overload]


def fastest_layout(peer: Peer, x0: Tensor) -> torch.memory_format:
    """The memory format in which a forward and backward pass is faster, timed on a few pictures."""
    seconds = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        use_layout(peer.network, layout)
        for _ in range(2):
            began = time.monotonic()
            peer.loss(x0.to(memory_format=layout)).backward()
            seconds[layout] = time.monotonic() - began
    return min(seconds, key=lambda layout: seconds[layout])


def train_peer(peer: Peer, signals: Batches, seconds: float, decays: bool = True) -> int:
    """Train on these signals for so long; the number of signals seen. decays: whether the rate falls."""
    cast = torch.autocast("cpu", torch.bfloat16, enabled=peer.fast and bf16_refused("cpu") is None)
    peer.network.train()
    initial = [group["lr"] for group in peer.optimizer.param_groups]
    source = signals(peer.batch)
    layout = fastest_layout(peer, next(source)[:4]) if peer.fast else torch.contiguous_format
    use_layout(peer.network, layout)
    began = reported = time.thread_time()
    update = 0
    while (elapsed := time.thread_time() - began) < seconds:
        x0 = next(source).to(memory_format=layout)
        factor = peer.learning_rate(update, elapsed / seconds * decays) if peer.learning_rate else 1.0
        for group, lr in zip(peer.optimizer.param_groups, initial, strict=True):
            group["lr"] = lr * factor
        peer.optimizer.zero_grad()
        with cast:
            loss = peer.loss(x0)
        loss.backward()
        if peer.clip:
            nn.utils.clip_grad_norm_(peer.network.parameters(), peer.clip)
        peer.optimizer.step()
        peer.after_update()
        update += 1
        if time.thread_time() - reported > 60:
            reported = time.thread_time()
            left = (seconds - elapsed) / 60
            note(f"  {update * peer.batch:,} pictures, loss {loss.item():.4f}, {left:.0f} minutes left")
    peer.network.eval()
    return update * peer.batch


def best_learning_rate(budget: float, signals: Batches, held_out: Tensor, minutes: float) -> float:
    """That of the tuned U-Net with the least loss on held-out signals after some minutes of each.

    It does not fall in these, or one would be chosen that a longer training does not bear.
    """
    losses: dict[float, float] = {}
    for rate in LEARNING_RATES:
        torch.manual_seed(0)
        peer = tuned_unet(tuple(held_out.shape[1:]), budget, rate)
        train_peer(peer, signals, 60 * minutes, decays=False)
        torch.manual_seed(1)
        with torch.no_grad():
            losses[rate] = float(torch.stack([peer.loss(held_out) for _ in range(4)]).mean())
        note(f"  learning rate {rate:g}: held-out loss {losses[rate]:.5f}")
    return min(losses, key=lambda rate: losses[rate])


# Contestants

Result = dict[str, Any]
"""What a training cost, and its samples, "pictures" (n, side, side, 3) uint8."""


@dataclass(frozen=True)
class Benchmark:
    """The pictures, the times and the samples that all trainings have in common."""

    dataset: Dataset
    train: NDArray
    held_out: NDArray
    codec: ImageCodec
    args: Any

    def signals(self, batch: int) -> Iterator[Tensor]:
        """The training pictures as signals, in batches."""
        return batches(self.codec, self.dataset.items, self.train, batch)

    def encoded(self, index: NDArray) -> Tensor:
        """Signals of these pictures."""
        return self.codec.encode(torch.from_numpy(np.ascontiguousarray(self.dataset.items[index])))

    def of_peer(
        self,
        peer: Peer,
        minutes: float,
        n: int,
        signals: Batches | None = None,
        decode: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> Result:
        """Train a foreign model on pictures, or on the signals that ``decode`` makes pictures of; sample."""
        images = train_peer(peer, signals or self.signals, 60 * minutes)
        began = time.thread_time()
        numbers = [min(BATCH_OF_SAMPLES, n - at) for at in range(0, n, BATCH_OF_SAMPLES)]
        x = torch.cat([decode(peer.sample(number)) for number in numbers])
        return {
            "minutes": minutes,
            "images": images,
            "nfe": peer.nfe,
            "gflop": peer.gflop,
            "parameters": sum(p.numel() for p in peer.network.parameters()),
            "seconds": (time.thread_time() - began) / n,
            "pictures": self.codec.decode(x),
        }

    def of_recipe(self, name: str, n: int, settings: list[str], **sampling: Any) -> Result:
        """Train a recipe of alphabar for the full time, and sample."""
        minutes, folder = self.args.minutes, self.args.out / name
        recipe = alphabar.with_settings(alphabar.named_recipe(name), [*settings, "monitor.share=0"])
        network = network_of(recipe)
        runtime = probe(recipe, try_compile=False)
        reported = time.monotonic()
        run = alphabar.begin(folder, recipe)
        for record in alphabar.train(self.dataset, run, budget=60 * minutes, runtime=runtime):
            if record.loss is not None and time.monotonic() - reported > 60:
                reported = time.monotonic()
                left = record.eta / 60
                note(f"  {record.images:,} pictures, loss {record.loss:.4f}, {left:.0f} minutes left")
        model = alphabar.load_model(folder)
        chosen = alphabar.sampling_settings(model, **sampling)
        began = time.monotonic()
        pictures = last(alphabar.sample(model, n, chosen))
        return {
            "minutes": minutes,
            "images": model.images,
            "nfe": nfe_per_sample(model, chosen),
            "gflop": flops(network, self.codec.spatial) / 1e9,
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": (time.monotonic() - began) / n,
            "pictures": pictures,
        }

    def budget_of(self, name: str, settings: list[str]) -> float:
        """GFLOP of an evaluation of a recipe's network; of `latent`, GFLOP of its decoder."""
        recipe = alphabar.with_settings(
            alphabar.named_recipe(name), [*settings, f"data.size={self.args.size}"]
        )
        codec = build_codec(recipe.data)
        return (decoding_flops(codec) or flops(network_of(recipe), codec.spatial)) / 1e9

    def tuned(self) -> Result:
        """Train diffusers' U-Net of the FLOPs of our recipe with its best learning rate."""
        args, budget = self.args, self.budget_of(self.args.ours, self.args.settings.split())
        held_out = self.encoded(self.held_out[:256])
        rate = args.rate or best_learning_rate(budget, self.signals, held_out, args.tuning)
        torch.manual_seed(0)
        return {"rate": rate} | self.of_peer(tuned_unet(self.codec.shape, budget, rate), args.minutes, args.n)

    def latents(self) -> Result:
        """Train diffusers' autoencoder, then its U-Net on the latents; encoding them counts."""
        args, began = self.args, time.thread_time()
        first = autoencoder(self.codec.shape, self.budget_of("latent", []))
        train_peer(first, self.signals, 60 * args.minutes * SHARE)
        encode = _encoder(self, first.network)
        known = self.held_out[:256]
        training, held_out = encode(self.train), encode(known)[0]
        scale = training.std()
        took = (time.thread_time() - began) / 60

        def signals(batch: int) -> Iterator[Tensor]:
            return batches_of_latents(training / scale, batch)

        @torch.no_grad()
        def decode(latents: Tensor) -> Tensor:
            return first.network.decode(latents * scale).sample.clamp(-1, 1)

        error = float(F.mse_loss(decode(held_out / scale), self.encoded(known)))
        budget = self.budget_of(args.ours, args.settings.split())
        rate = args.rate or best_learning_rate(budget, signals, held_out / scale, args.tuning)
        torch.manual_seed(0)
        peer = tuned_unet(tuple(training.shape[2:]), budget, rate)
        found = self.of_peer(peer, args.minutes - took, args.n, signals, decode)
        own = {"minutes": args.minutes, "decoding": first.gflop, "psnr": 10 * math.log10(4 / error)}
        return {"rate": rate} | found | own


def _encoder(benchmark: Benchmark, network: Any) -> Callable[[NDArray], Tensor]:
    """Indices of n pictures -> latents (2, n, ...) of them and of mirrored ones, in bf16 if it can be."""
    in_bf16 = bf16_refused("cpu") is None

    @torch.no_grad()
    def encode(index: NDArray) -> Tensor:
        network.eval()
        parts = []
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            for part in np.array_split(index, max(len(index) // BATCH_OF_SAMPLES, 1)):
                x = benchmark.encoded(part)
                parts.append(torch.stack([network.encode(y).latent_dist.mean for y in (x, x.flip(3))]))
        return torch.cat(parts, 1).float()

    return encode


NAMES = {
    "nested": "**`nested`**",
    "latents": "diffusers' AutoencoderKL and tuned U-Net",
    "notebook": "(a) the notebook's loop, DDIM",
    "classic": "(b) `classic` in alphabar's trainer, DDIM",
    "denoising": "(c) denoising-diffusion-pytorch with its defaults, DDIM",
    "diffusers": "(d) diffusers, unconditional example, DDIM",
    "tuned": "(e) tuned diffusers U-Net",
    "lean": "**`lean`**",
}
AT_SIZE = {64: ("notebook", "classic", "denoising", "diffusers", "tuned", "lean")}
LARGER = ("tuned", "latents", "nested")  # at other sizes


def compute(benchmark: Benchmark, key: str) -> Result:
    """Train and sample the contestant of that key."""
    args = benchmark.args
    few, short, shape = max(args.n // SLOW_SHARE, 4), args.short, benchmark.codec.shape
    works: dict[str, Callable[[], Result]] = {
        "notebook": lambda: benchmark.of_peer(notebook(shape, args.steps), short, few),
        "classic": lambda: benchmark.of_recipe("classic", few, [], sampler="ddim", steps=args.steps),
        "denoising": lambda: benchmark.of_peer(denoising_diffusion_pytorch(shape, args.steps), short, few),
        "diffusers": lambda: benchmark.of_peer(diffusers_example(shape, args.steps), short, few),
        "tuned": benchmark.tuned,
        "latents": benchmark.latents,
        args.ours: lambda: benchmark.of_recipe(args.ours, args.n, args.settings.split()),
    }
    torch.manual_seed(0)
    return works[key]()


def evaluated(benchmark: Benchmark, found: Result, grid: Path) -> Result:
    """The result with the distances of its samples in place of them; 64 samples are written as a grid."""
    extractor = EXTRACTORS.build("lite0", device="cpu")
    pictures = found.pop("pictures")
    image_grid(pictures[:64]).save(grid)
    real = compute_features(extractor, np.asarray(benchmark.dataset.items[benchmark.train]), cached=True)
    fake = compute_features(extractor, pictures)
    distance = kid(fake, real)
    return found | {
        "n": len(pictures),
        "frechet": frechet_distance(fake, real),
        "kid": distance.value,
        "kid_error": distance.standard_error,
    }


def row(key: str, found: Result) -> list[str]:
    """What a contestant costs and reaches."""
    return [
        NAMES[key] + (f", learning rate {found['rate']:g}" if "rate" in found else ""),
        f"{found['minutes']:g}",
        f"{found['parameters'] / 1e6:.1f} M",
        f"{found['gflop']:.2f}" + (f" + {found['decoding']:.2f}" if "decoding" in found else ""),
        f"{found['images'] / 60 / found['minutes']:.1f}",
        f"{found['images']:,}",
        str(found["nfe"]),
        f"{found['seconds']:.2f}",
        str(found["n"]),
        f"{found['kid']:.3f} ± {found['kid_error']:.3f}",
        f"{found['frechet']:.0f}",
    ]


def arguments() -> Any:
    parser = argument_parser(__doc__)
    parser.add_argument("data", help="a folder of pictures or a built-in name")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="where results are kept")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of training, for those with the full time"
    )
    parser.add_argument("--short", type=float, default=15.0, help="minutes of training, for the others")
    parser.add_argument("--tuning", type=float, default=3.0, help="minutes for each learning rate of (e)")
    parser.add_argument("--rate", type=float, help="the learning rate of (e), if it is known")
    parser.add_argument("--size", type=int, default=64, help="of the pictures")
    parser.add_argument("--settings", default="network.widths=[32,64,128]", help="of lean or nested")
    parser.add_argument(
        "-n", type=int, default=500, help=f"samples; the slow ones get 1/{SLOW_SHARE} of them"
    )
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of the slow ones")
    parser.add_argument("--only", nargs="*", choices=NAMES, help="run these and print nothing")
    chosen = parser.parse_args()
    chosen.keys = AT_SIZE.get(chosen.size, LARGER)
    chosen.ours = chosen.keys[-1]
    return chosen


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    codec = ImageCodec(args.size)
    dataset = load_dataset(args.data, codec)
    train, held_out = dataset.split(alphabar.named_recipe("lean").data.held_out)
    benchmark = Benchmark(dataset, train, held_out, codec, args)
    results: dict[str, Result] = {}
    for key in args.keys:
        stored = args.out / f"{key}.json"
        if not stored.exists():
            if args.only and key not in args.only:
                continue
            note(NAMES[key])
            found = evaluated(benchmark, compute(benchmark, key), args.out / f"{key}.png")
            stored.write_text(json.dumps(found))
        results[key] = json.loads(stored.read_text())
    if not args.only:
        print_results(args, len(train), results)


ABOUT = {
    64: "(a) is a student's DDPM notebook, (b) the same as recipe `classic` in alphabar's trainer; (c) and"
    " (d) are two libraries with their default settings. (e) is diffusers' `UNet2DModel` reduced to the FLOPs"
    " of `lean`,",
}
LARGER_ABOUT = (
    "diffusers' `UNet2DModel` is reduced to about the FLOPs of `nested`. Its `AutoencoderKL`, f4 with 4"
    f" channels and a decoder of about the FLOPs of that of `latent`, has {SHARE:.0%} of the time, encoding"
    " counts, and the `UNet2DModel` on the standardised latents has the rest. The U-Nets are tuned:"
)
TUNED = (
    "eps-prediction with a cosine schedule, fused AdamW with warm-up and cosine decay, the best of four"
    " learning rates, EMA, channels-last memory format, and DPM-Solver++ in 20 steps, of pixels with dynamic"
    " thresholding. There is one run of each."
)


def print_results(args: Any, pictures: int, results: dict[str, Result]) -> None:
    """The section of a result page."""
    print_section(
        f"## {args.minutes:g} minutes on this machine",
        f"How does `{args.ours}` compare with what people would otherwise use, at equal time?",
        f"Every training uses the same {pictures:,} pictures of {args.data} at {args.size} px and"
        f" {torch.get_num_threads()} threads. {ABOUT.get(args.size, LARGER_ABOUT)} {TUNED}",
    )
    if "psnr" in results.get("latents", {}):
        print_paragraph(
            f"The autoencoder's PSNR on held-out pictures is {results['latents']['psnr']:.1f} dB."
        )
    head = [
        "",
        "minutes",
        "parameters",
        "GFLOP",
        "pictures/s",
        "pictures seen",
        "NFE",
        "s/sample",
        "n",
        "kernel distance",
    ]
    print_table([*head, "Fréchet"], (row(key, found) for key, found in results.items()))
    print_command()


if __name__ == "__main__":
    main()
