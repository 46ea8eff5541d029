"""How well a trained model restores pictures it has never seen, beside classical methods.

    python benchmarks/restoration.py --model runs/cars --data stanford_cars --n 32 --gallery gallery.png

prints a table a task: every solver that can take it, at --steps steps, the classical baseline and, where the
extra "deepinv" is installed, deepinv's own algorithms with the same network, at their defaults but for the
number of steps. Pictures are --n, from number --first on, of those that the model's recipe holds out of
training. Needs opencv-python-headless and scikit-image (the extra "benchmarks"). Noise levels are in the
units of [-1, 1]; y is neither rounded nor clipped. The lite0 distance is 1 - cosine between features: of
mended pictures whose original is known it stands in for LPIPS, whose weights cannot be had offline. The
Fréchet distance is that from the training pictures; so few are far away whatever they are, and that of their
originals is printed first. With --size pictures are larger than the model's, for deepinv's algorithms too.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import skimage.metrics
import skimage.restoration
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import alphabar
from alphabar.codecs.image import ImageCodec, to_pictures, to_signal
from alphabar.data.dataset import cache_root
from alphabar.diffusion.random import Noise
from alphabar.errors import UsageError
from alphabar.images import image_grid
from alphabar.metrics.distances import frechet_distance
from alphabar.metrics.features.extractors import EXTRACTORS, extract
from alphabar.restoration.degradation import Degradation, parse_degradation
from alphabar.restoration.operators.base import Linear, Operator
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import ROUNDING, restoration_settings
from alphabar.restoration.solvers.registry import SOLVERS
from alphabar.restoration.tiling import spread
from alphabar.runs.model import Model


def telea(y: Tensor, operator: Operator, sigma_y: float) -> Tensor:
    """Telea's inpainting (2004), OpenCV, radius 3."""
    missing = (operator.s[0] == 0).numpy().astype(np.uint8)
    filled = [cv2.inpaint(picture, missing, 3, cv2.INPAINT_TELEA) for picture in to_pictures(y).numpy()]
    return to_signal(torch.from_numpy(np.stack(filled)))


def bicubic(y: Tensor, operator: Operator, sigma_y: float) -> Tensor:
    return F.interpolate(y, operator.shape[1:], mode="bicubic").clamp(-1, 1)


def wiener(y: Tensor, operator: Operator, sigma_y: float) -> Tensor:
    """Wiener deconvolution, scikit-image, with the best of five balances (an oracle's choice)."""
    kernel = torch.zeros(1, 3, *operator.shape[1:])
    h, w = operator.shape[1:]
    kernel[..., h // 2, w // 2] = 1
    psf = operator.A(kernel)[0, 0].numpy()
    radius = min(h, w) // 2 - 1
    psf = psf[h // 2 - radius : h // 2 + radius + 1, w // 2 - radius : w // 2 + radius + 1]
    planes = y.numpy()
    answers = [
        torch.tensor(
            np.stack(
                [[skimage.restoration.wiener(p, psf, b, clip=True) for p in picture] for picture in planes]
            )
        ).float()
        for b in (1e-4, 1e-3, 1e-2, 3e-2, 0.1)
    ]
    return min(answers, key=lambda x: (operator.A(x) - y).square().mean().sub(sigma_y**2).abs().item())


def as_given(y: Tensor, operator: Operator, sigma_y: float) -> Tensor:
    return y.expand(-1, 3, -1, -1)


TASKS: dict[str, Callable[[Tensor, Operator, float], Tensor]] = {
    "box": telea,
    "random:0.7": telea,
    "down:4": bicubic,
    "down:8": bicubic,
    "blur:1.5": wiener,
    "blur:1.5+noise:0.05": wiener,
    "motion:7,45": wiener,
    "motion:7,45+noise:0.05": wiener,
    "grey": as_given,
    "jpeg:10": as_given,
    "noise:0.2": as_given,
}


class Counted(nn.Module):
    """A denoiser that counts the pictures it is asked for, and the backward passes through it."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.schedule, self.network = denoiser, denoiser.schedule, denoiser.network
        self.asked = self.backwards = 0

    def forward(self, x, t, cond=None):
        self.asked += len(x)
        D = self.denoiser(x, t, cond)
        if D.requires_grad:
            D.register_hook(self._through)
        return D

    def _through(self, gradient):
        self.backwards += len(gradient)


class Judge:
    """What pictures look like to lite0, and those that the model was trained on."""

    def __init__(self, model: Model, data: str, size: int):
        recipe = model.recipe.data
        *_, prepared = alphabar.prepare(alphabar.open_source(data), ImageCodec(size), recipe.fit)
        self.pictures = prepared.result.items
        train, self.held_out = prepared.result.split(recipe.held_out)
        self.extractor = EXTRACTORS.build("lite0", device="cpu")
        *_, done = extract(self.extractor, self.pictures, cache=cache_root() / "features")
        self.real = done.result.features[train]

    def originals(self, n: int, first: int) -> Tensor:
        """n pictures, from number ``first`` on, that the model's recipe holds out, (n, 3, size, size)."""
        if len(self.held_out) < first + n:
            raise SystemExit(f"{len(self.held_out)} pictures are held out, {first + n} are asked for")
        return to_signal(torch.from_numpy(np.asarray(self.pictures[self.held_out[first : first + n]])))

    def looks(self, pictures: Tensor) -> Tensor:
        """Features of pictures (n, h, w, 3) uint8."""
        *_, done = extract(self.extractor, pictures)
        return done.result.features


def observe(x: Tensor, degradation: Degradation) -> tuple[Operator, Tensor, float]:
    operator = degradation.operator(tuple(x.shape[1:]))
    y = operator.A(x)
    y = y + degradation.sigma * Noise(0, range(len(y)), "benchmark").normal(0, y)
    return operator, y, degradation.sigma


def measures(
    x: Tensor, truth: Tensor, y: Tensor, operator: Operator, sigma_y: float, judge: Judge
) -> list[str]:
    ours, theirs = to_pictures(x).numpy(), to_pictures(truth).numpy()
    psnr = [skimage.metrics.peak_signal_noise_ratio(b, a) for a, b in zip(ours, theirs)]
    ssim = [
        skimage.metrics.structural_similarity(b, a, channel_axis=2, win_size=7) for a, b in zip(ours, theirs)
    ]
    seen, wanted = (judge.looks(torch.from_numpy(p)) for p in (ours, theirs))
    distance = 1 - F.cosine_similarity(seen, wanted).mean().item()
    frechet = frechet_distance(seen, judge.real)
    miss = (operator.A(x) - y).square().mean().item()
    if isinstance(operator, Mask):
        miss /= operator.s.mean().item()
    consistency = f"{miss / sigma_y**2:.2f}" if sigma_y > 0 else f"({miss**0.5:.4f})"
    return [
        f"{statistics.mean(psnr):.2f}",
        f"{statistics.mean(ssim):.3f}",
        f"{distance:.4f}",
        f"{frechet:.0f}",
        consistency,
    ]


class Rivals:
    """deepinv's algorithms, given the same denoiser and the same operator, in its units of [0, 1]."""

    def __init__(self, denoiser: Counted, operator: Operator, sigma_y: float):
        import deepinv
        import numpy

        from alphabar.restoration.deepinv import DeepinvDenoiser

        class Same(deepinv.physics.LinearPhysics):
            def A(self, x, **_):
                return operator.A(x.float())

            def A_adjoint(self, y, **_):
                return operator.adjoint(y.float())  # type: ignore[attr-defined]

        noise = deepinv.physics.GaussianNoise(max(sigma_y, 2 * ROUNDING) / 2)
        self.masked = isinstance(operator, Mask)
        if self.masked:
            known = operator.s.float().expand(1, *operator.shape)
            self.physics = deepinv.physics.Inpainting(operator.shape, mask=known, noise_model=noise)
        else:
            self.physics = Same(img_size=operator.shape, noise_model=noise)
        self.zero = operator.A(torch.ones(1, *operator.shape))
        self.sigma, self.denoiser = noise.sigma.item(), DeepinvDenoiser(denoiser)  # type: ignore[arg-type]
        self.sampling, self.optim, self.linspace = deepinv.sampling, deepinv.optim, numpy.linspace

    def algorithms(self, steps: int) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        s, L2 = self.sampling, self.optim.data_fidelity.L2()
        yield "deepinv DiffPIR", s.DiffPIR(self.denoiser, L2, sigma=self.sigma, max_iter=steps)
        if self.masked:
            # It asks for the singular values, which deepinv knows of masks and not of the other operators.
            yield "deepinv DDRM", s.DDRM(self.denoiser, sigmas=self.linspace(1, 0, steps))
        yield "deepinv DPS", s.DPS(self.denoiser, num_steps=steps)
        for name, fidelity in (
            ("deepinv PiGDM", s.PiGDMDataFidelity()),
            ("deepinv moment matching", s.MomentMatchingDataFidelity()),
        ):
            yield (
                name,
                s.PosteriorDiffusion(
                    fidelity,
                    self.denoiser,
                    s.VariancePreservingDiffusion(alpha=1.0),
                    s.DDPMSolver(timesteps=torch.linspace(1, 0, steps, dtype=torch.float64)),
                ),
            )

    def restore(self, algorithm: Callable[..., Tensor], y: Tensor) -> Tensor:
        torch.manual_seed(0)
        x = algorithm((y + self.zero) / 2, self.physics)
        return 2 * x.detach().float() - 1


def rows(
    model: Model, truth: Tensor, task: str, solvers: Sequence[str], steps: int, judge: Judge
) -> Iterator[list[str]]:
    operator, y, sigma_y = observe(truth, parse_degradation(task))
    baseline = TASKS[task]
    begin = time.perf_counter()
    x = baseline(y, operator, sigma_y)
    seconds = time.perf_counter() - begin
    name = baseline.__name__.replace("_", " ")
    yield [name, *measures(x, truth, y, operator, sigma_y, judge), "", "", f"{seconds / len(y):.2f}"]
    # The smallest singular values of a blur amplify the rounding of float32.
    told = max(sigma_y, ROUNDING) if task.startswith(("blur", "motion")) else sigma_y
    for solver in ["default", *solvers]:
        counted = Counted(model.denoiser)
        try:
            if solver == "default":
                settings = restoration_settings(model, operator, told)
            else:
                settings = restoration_settings(model, operator, told, solver=solver, steps=steps, pag=0.0)
            begin = time.perf_counter()
            *_, last = restore(replace(model, denoiser=counted), y, operator, told, settings=settings)
        except UsageError:
            continue
        seconds = time.perf_counter() - begin
        assert last.result is not None
        name = f"`{solver}`"
        if solver == "default":
            name = (
                f"**default: {settings.solver['name']}, {settings.steps}"
                + f", PAG {settings.pag:g}" * (settings.pag > 0)
                + "**"
            )
        yield [
            name,
            *measures(last.result[0], truth, y, operator, sigma_y, judge),
            f"{counted.asked / len(y):.0f}",
            f"{counted.backwards / len(y):.0f}",
            f"{seconds / len(y):.2f}",
        ]
    if not isinstance(operator, Linear) or not find_spec("deepinv"):
        return
    counted = Counted(model.denoiser)
    rivals = Rivals(counted, operator, sigma_y)
    for name, algorithm in rivals.algorithms(steps):
        counted.asked = counted.backwards = 0
        begin = time.perf_counter()
        x = rivals.restore(algorithm, y)
        seconds = time.perf_counter() - begin
        yield [
            name,
            *measures(x, truth, y, operator, sigma_y, judge),
            f"{counted.asked / len(y):.0f}",
            f"{counted.backwards / len(y):.0f}",
            f"{seconds / len(y):.2f}",
        ]


def gallery(model: Model, truth: Tensor, tasks: Sequence[str], file: Path) -> None:
    """A row a task: original, what is left, four answers of the default, their spread."""
    panels: list[Tensor] = []
    for i, task in enumerate(tasks):
        x = truth[i % len(truth)][None]
        operator, y, sigma_y = observe(x, parse_degradation(task))
        told = max(sigma_y, ROUNDING) if task.startswith(("blur", "motion")) else sigma_y
        *_, last = restore(model, y, operator, told, n=4)
        assert last.result is not None
        apart = spread(last.result)
        shown = F.interpolate(y.expand(-1, 3, -1, -1), x.shape[2:], mode="nearest")
        scaled = (2 * apart / apart.max().clamp(min=1e-6) - 1).expand(1, 3, -1, -1)
        panels += [x, shown, *last.result, scaled]
    image_grid(to_pictures(torch.cat(panels)), 7, scale=2).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, help="of the pictures, a multiple of the model's, which it is")
    parser.add_argument("--steps", type=int, default=50, help="of every solver but the default")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS))
    parser.add_argument("--gallery", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = alphabar.load_model(given.model, "cpu")
    judge = Judge(model, given.data, given.size or model.recipe.data.size)
    truth = judge.originals(given.n, given.first)
    head = ["", "PSNR", "SSIM", "lite0 distance", "Fréchet", "consistency"]
    head += ["evaluations", "backward", "s a picture"]
    floor = frechet_distance(judge.looks(to_pictures(truth)), judge.real)
    print(f"{model.images:,} images seen; {given.n} held-out pictures of {given.data}; {given.steps} steps;")
    print(f"Fréchet distance of the originals {floor:.0f}\n")
    for task in given.tasks:
        print(f"### `{task}`\n", *(f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head))), sep="\n")
        for row in rows(model, truth, task, given.solvers, given.steps, judge):
            print(f"| {' | '.join(row)} |", flush=True)
        print()
    if given.gallery:
        gallery(model, truth, given.tasks, given.gallery)


if __name__ == "__main__":
    main()
