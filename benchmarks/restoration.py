"""How close do restorations come to the original, compared with classical methods and deepinv?

    python benchmarks/restoration.py --model cars64 --data stanford_cars --n 8 --first 10 --solvers

Prints a table for each task (section 2 and appendix H of docs/results/restoration.md): the classical method,
the default restoration, every solver of ``--solvers`` in ``--steps`` steps, and where the extra "deepinv" is
installed deepinv's algorithms with the same network, with their defaults except for the number of steps.
Pictures are ``--n``, from number ``--first`` on, of those that the model's recipe holds out of training. With
``--size`` pictures are larger than the model's, for deepinv's algorithms too. Needs the extra "benchmarks"
(OpenCV, scikit-image).

Noise levels are in the units of [-1, 1]; y is neither rounded nor clipped. The lite0 distance is 1 − cosine
between features of result and original, which stands in for LPIPS, whose weights are not to be had offline.
The Fréchet distance is that from the training pictures; so few pictures are far from them in any case, and
that of the originals is printed first.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.metrics
import skimage.restoration
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import alphabar
from alphabar.codecs.base import reader_of
from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.images import image_grid
from alphabar.metrics.distances import frechet_distance
from alphabar.metrics.features import EXTRACTORS
from alphabar.progress import last
from alphabar.restoration.deepinv import DeepinvDenoiser
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.operators.base import ROUNDING_STD, Linear, Operator, Spectral
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import RestorationSettings, restoration_settings
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.restoration.task import sample_std
from alphabar.runs.model import Model
from common import argument_parser, compute_features, load_dataset, print_command, print_table

CODEC = ImageCodec(64)  # of pictures of any size


@dataclass(frozen=True)
class Problem:
    """Measurements y of pictures, (n, *measurement_shape), and the degradation that left them."""

    operator: Operator
    y: Tensor
    sigma_y: float

    @property
    def stated_sigma(self) -> float:
        """The noise that solvers are given: the singular values of a blur amplify the rounding of float32."""
        whole = self.operator.measurement_shape == self.operator.shape
        blurred = isinstance(self.operator, Linear) and whole and not self.operator.is_mask
        return max(self.sigma_y, ROUNDING_STD) if blurred and not self.operator.is_identity else self.sigma_y

    def consistency(self, x: Tensor) -> str:
        """‖A x − y‖² / (m·sigma_y²); without noise the root mean square of A x − y, in brackets."""
        error = (self.operator.A(x) - self.y).square().mean().item()
        if isinstance(self.operator, Spectral) and self.operator.is_mask:
            error /= self.operator.s.mean().item()
        return f"{error / self.sigma_y**2:.2f}" if self.sigma_y > 0 else f"({error**0.5:.4f})"


def degraded(x: Tensor, task: str) -> Problem:
    """What a degradation leaves of pictures x (n, 3, h, w)."""
    degradation = parse_degradation(task)
    operator, sigma_y = degradation.operator(tuple(x.shape[1:])), degradation.sigma or 0.0
    y = operator.A(x)
    return Problem(operator, y + sigma_y * Noise(0, range(len(y)), "benchmark").normal(0, y), sigma_y)


# Classical methods


def telea(problem: Problem) -> Tensor:
    """Telea's inpainting (2004), OpenCV, radius 3."""
    assert isinstance(problem.operator, Spectral)
    missing = (problem.operator.s[0] == 0).numpy().astype(np.uint8)
    filled = [
        cv2.inpaint(picture, missing, 3, cv2.INPAINT_TELEA) for picture in CODEC.decode(problem.y).numpy()
    ]
    return CODEC.encode(torch.from_numpy(np.stack(filled)))


def bicubic(problem: Problem) -> Tensor:
    """Bicubic interpolation."""
    return F.interpolate(problem.y, problem.operator.shape[1:], mode="bicubic").clamp(-1, 1)


def wiener(problem: Problem) -> Tensor:
    """Wiener deconvolution, scikit-image, with the best of five balances, chosen by the known noise."""
    operator = problem.operator
    h, w = operator.shape[1:]
    impulse = torch.zeros(1, 3, h, w)
    impulse[..., h // 2, w // 2] = 1
    radius = min(h, w) // 2 - 1
    rows, columns = (slice(n // 2 - radius, n // 2 + radius + 1) for n in (h, w))
    psf = operator.A(impulse)[0, 0, rows, columns].numpy()

    def deconvolved(balance: float) -> Tensor:
        planes = [
            [skimage.restoration.wiener(plane, psf, balance, clip=True) for plane in picture]
            for picture in problem.y.numpy()
        ]
        return torch.from_numpy(np.array(planes)).float()

    def misfit(x: Tensor) -> float:
        return ((operator.A(x) - problem.y).square().mean() - problem.sigma_y**2).abs().item()

    return min((deconvolved(balance) for balance in (1e-4, 1e-3, 1e-2, 3e-2, 0.1)), key=misfit)


def as_given(problem: Problem) -> Tensor:
    """The measurement itself."""
    return problem.y.expand(-1, 3, -1, -1)


TASKS: dict[str, Callable[[Problem], Tensor]] = {
    "box": telea,
    "random:0.7": telea,
    "downsample:4": bicubic,
    "downsample:8": bicubic,
    "blur:1.5": wiener,
    "blur:1.5+noise:0.05": wiener,
    "motion:7,45": wiener,
    "motion:7,45+noise:0.05": wiener,
    "grayscale": as_given,
    "jpeg:10": as_given,
    "noise:0.2": as_given,
}


# deepinv


class Counter:
    """Counts the pictures that a network is given, and the backward passes through it."""

    def __init__(self, network: nn.Module):
        self.evaluations = self.backward_passes = 0
        network.register_forward_hook(self.count)

    def count(self, network: nn.Module, inputs: tuple[Any, ...], F: Tensor) -> None:
        """Called with every prediction F (n, ...)."""
        self.evaluations += len(F)
        if F.requires_grad:
            F.register_hook(self.count_backward)

    def count_backward(self, gradient: Tensor) -> None:
        """Called with the gradient (n, ...) of each backward pass."""
        self.backward_passes += len(gradient)


class Deepinv:
    """deepinv's algorithms, given the same denoiser and the same operator, in deepinv's units of [0, 1]."""

    def __init__(self, denoiser: NetworkDenoiser, problem: Problem):
        import deepinv

        assert isinstance(problem.operator, Linear)
        operator: Linear = problem.operator

        class SamePhysics(deepinv.physics.LinearPhysics):  # type: ignore[misc]
            def A(self, x: Tensor, **_: Any) -> Tensor:
                return operator.A(x.float())

            def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
                return operator.adjoint(y.float())

        noise = deepinv.physics.GaussianNoise(max(problem.sigma_y, 2 * ROUNDING_STD) / 2)
        self.masked = operator.is_mask
        if isinstance(operator, Spectral) and operator.is_mask:
            known = operator.s.float().expand(1, *operator.shape)
            self.physics = deepinv.physics.Inpainting(operator.shape, mask=known, noise_model=noise)
        else:
            self.physics = SamePhysics(img_size=operator.shape, noise_model=noise)
        self.of_ones = operator.A(torch.ones(1, *operator.shape))
        self.sigma, self.denoiser = noise.sigma.item(), DeepinvDenoiser(denoiser)
        self.sampling, self.fidelity = deepinv.sampling, deepinv.optim.data_fidelity.L2()

    def algorithms(self, steps: int) -> Iterator[tuple[str, Callable[..., Tensor]]]:
        """Those that can take the operator, by name."""
        s = self.sampling
        yield "DiffPIR", s.DiffPIR(self.denoiser, self.fidelity, sigma=self.sigma, max_iter=steps)
        if self.masked:
            # It needs the singular values, which deepinv knows of masks and not of the other operators.
            yield "DDRM", s.DDRM(self.denoiser, sigmas=np.linspace(1, 0, steps))
        yield "DPS", s.DPS(self.denoiser, num_steps=steps)
        for name, fidelity in (
            ("PiGDM", s.PiGDMDataFidelity()),
            ("moment matching", s.MomentMatchingDataFidelity()),
        ):
            process = s.VariancePreservingDiffusion(alpha=1.0)
            solver = s.DDPMSolver(timesteps=torch.linspace(1, 0, steps, dtype=torch.float64))
            yield name, s.PosteriorDiffusion(fidelity, self.denoiser, process, solver)

    def restore(self, algorithm: Callable[..., Tensor], y: Tensor) -> Tensor:
        """The result for y in the units of [-1, 1]."""
        torch.manual_seed(0)
        x = algorithm((y + self.of_ones) / 2, self.physics)
        return 2 * x.detach().float() - 1


# Rows


class Reference:
    """Held-out pictures of a data set, and the features of those that the model was trained on."""

    def __init__(self, model: Model, data: str, size: int | None, n: int, first: int):
        settings = model.recipe.data
        codec = ImageCodec(size) if size else reader_of(model.codec)
        dataset = load_dataset(data, codec, settings.fit)
        train, held_out = dataset.split(settings.held_out)
        if len(held_out) < first + n:
            raise SystemExit(f"{len(held_out)} pictures are held out, fewer than {first + n}")
        self.extractor = EXTRACTORS.build("lite0", device="cpu")
        self.real = compute_features(self.extractor, dataset.items, cached=True)[train]
        self.items = torch.from_numpy(np.asarray(dataset.items[held_out[first : first + n]]))
        self.features = compute_features(self.extractor, self.items)

    def compare(self, x: Tensor, problem: Problem) -> list[str]:
        """PSNR, SSIM, lite0 distance, Fréchet distance and consistency of results x (n, 3, h, w)."""
        items = CODEC.decode(x)
        pairs = list(zip(self.items.numpy(), items.numpy()))
        psnr = [skimage.metrics.peak_signal_noise_ratio(truth, found) for truth, found in pairs]
        ssim = [
            skimage.metrics.structural_similarity(truth, found, channel_axis=2, win_size=7)
            for truth, found in pairs
        ]
        features = compute_features(self.extractor, items)
        distance = 1 - F.cosine_similarity(features, self.features).mean().item()
        return [
            f"{statistics.mean(psnr):.2f}",
            f"{statistics.mean(ssim):.3f}",
            f"{distance:.4f}",
            f"{frechet_distance(features, self.real):.0f}",
            problem.consistency(x),
        ]


def timed(
    work: Callable[[], Tensor], reference: Reference, problem: Problem, counter: Counter | None
) -> list[str]:
    """The cells of a row: how close the result is, and what it cost per picture."""
    if counter:
        counter.evaluations = counter.backward_passes = 0
    begin = time.perf_counter()
    x = work()
    seconds, n = time.perf_counter() - begin, len(problem.y)
    cost = ["", ""]
    if counter:
        cost = [f"{counter.evaluations / n:.0f}", f"{counter.backward_passes / n:.0f}"]
    return [*reference.compare(x, problem), *cost, f"{seconds / n:.2f}"]


def described(settings: RestorationSettings) -> str:
    """The default: its solver, steps and guidance."""
    guidance = "".join(f", {spec['name'].upper()} {spec['scale']:g}" for spec in settings.guidance)
    return f"**default: {settings.solver['name']}, {settings.steps}{guidance}**"


def rows(
    model: Model, counter: Counter, reference: Reference, task: str, solvers: Sequence[str], steps: int
) -> Iterator[list[str]]:
    """The classical method, the default, the solvers that can take the operator, and deepinv's algorithms."""
    problem = degraded(CODEC.encode(reference.items), task)
    operator, sigma_y = problem.operator, problem.stated_sigma
    classical = TASKS[task]
    name = classical.__name__.replace("_", " ")
    yield [name, *timed(lambda: classical(problem), reference, problem, None)]
    choices = [restoration_settings(model, operator, sigma_y)]
    choices += [
        restoration_settings(model, operator, sigma_y, solver=solver, steps=steps, guidance={})
        for solver in solvers
    ]
    for settings in choices:

        def work(settings: RestorationSettings = settings) -> Tensor:
            found = restore(model, problem.y, operator, sigma_y, settings=settings, precision="fp32")
            return last(found)[0]

        name = described(settings) if settings is choices[0] else f"`{settings.solver['name']}`"
        try:
            yield [name, *timed(work, reference, problem, counter)]
        except UsageError:  # a solver that cannot take the operator
            continue
    if isinstance(operator, Linear) and find_spec("deepinv"):
        yield from deepinv_rows(model, counter, reference, problem, steps)


def deepinv_rows(
    model: Model, counter: Counter, reference: Reference, problem: Problem, steps: int
) -> Iterator[list[str]]:
    """A row for each of deepinv's algorithms."""
    deepinv = Deepinv(model.denoiser, problem)
    for name, algorithm in deepinv.algorithms(steps):

        def work(algorithm: Callable[..., Tensor] = algorithm) -> Tensor:
            return deepinv.restore(algorithm, problem.y)

        yield [f"deepinv {name}", *timed(work, reference, problem, counter)]


def write_gallery(model: Model, items: Tensor, tasks: Sequence[str], file: Path) -> None:
    """One row per task: original, degraded, four default restorations, and their per-pixel spread."""
    panels: list[Tensor] = []
    for i, task in enumerate(tasks):
        x = CODEC.encode(items[i % len(items)][None])
        problem = degraded(x, task)
        found = last(restore(model, problem.y, problem.operator, problem.stated_sigma, n=4))
        spread = sample_std(found)
        y = F.interpolate(problem.y.expand(-1, 3, -1, -1), x.shape[2:], mode="nearest")
        panels += [x, y, *found, (2 * spread / spread.max().clamp(min=1e-6) - 1).expand(1, 3, -1, -1)]
    image_grid(CODEC.decode(torch.cat(panels)), 7, scale=2).save(file)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", required=True, help="a run, a model folder or a shipped model")
    parser.add_argument("--data", required=True, help="the pictures that the model was trained on")
    parser.add_argument("--n", type=int, default=16, help="held-out pictures")
    parser.add_argument("--first", type=int, default=0, help="the number of the first of them")
    parser.add_argument("--size", type=int, help="of the pictures: the model's, or a multiple of it")
    parser.add_argument("--steps", type=int, default=50, help="of everything except the default")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, metavar="TASK")
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS), metavar="SOLVER")
    parser.add_argument("--gallery", type=Path, help="a PNG with default restorations of every task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = alphabar.load_model(args.model, "cpu")
    counter = Counter(model.denoiser.network)
    reference = Reference(model, args.data, args.size, args.n, args.first)
    originals = frechet_distance(reference.features, reference.real)
    print(
        f"{model.images:,} images seen; {args.n} held-out pictures of {args.data}; {args.steps} steps;"
        f" Fréchet distance of the originals {originals:.0f}\n"
    )
    head = ["method", "PSNR", "SSIM", "lite0 distance", "Fréchet", "consistency"]
    head += ["NFE", "backward passes", "s/picture"]
    for task in args.tasks:
        print(f"`{task}`\n")
        print_table(head, rows(model, counter, reference, task, args.solvers, args.steps))
    print_command()
    if args.gallery:
        write_gallery(model, reference.items, args.tasks, args.gallery)


if __name__ == "__main__":
    main()
