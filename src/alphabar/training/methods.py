"""What a training minimises: diffusion, what makes it quick or guides it, and its opponents, a GAN and a VAE.

The loop, its records and what it survives are the same for all. A method says what the loss of a batch is,
what else it updates, and what of itself a checkpoint must hold.
"""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alphabar.data.pixels import to_signal
from alphabar.diffusion.augmentation import drawn
from alphabar.diffusion.denoiser import Cond, Denoiser, NetworkDenoiser
from alphabar.diffusion.densities import WEIGHTS
from alphabar.diffusion.forward import diffuse
from alphabar.diffusion.grids import GRIDS
from alphabar.diffusion.guidance import EVERYWHERE, PerturbedAttention, guided
from alphabar.diffusion.loss import loss
from alphabar.diffusion.noise import Noise
from alphabar.diffusion.samplers import evaluations, last, unipc
from alphabar.diffusion.schedules import SCHEDULES, Schedule, broadcast
from alphabar.errors import UsageError
from alphabar.networks import NETWORKS, Autoencoder, Classifier, Network, flops
from alphabar.networks.latent import Encoder
from alphabar.registry import Registry
from alphabar.training.checkpoint import pack_optimizer, pack_tensors, unpack_optimizer, unpack_tensors
from alphabar.training.runtime import Runtime

# Recipes are checked by METHODS, so the two cannot import each other.
if TYPE_CHECKING:
    from alphabar.training.recipe import Recipe


class Diffusion:
    """The denoising loss, as the recipe's parameterization, density and weight have it."""

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        self.denoiser = denoiser
        self.weight = WEIGHTS.build(recipe.weight)
        self.augment = recipe.data.augment

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        """Whatever has to happen before an update of the network.

        images: seen so far; share: of the training that is done.
        """

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None) -> Tensor:
        """What the network is to make small, a picture (n,)."""
        if self.augment:
            done = drawn(len(x0), self.augment)
            x0, told = done.apply(x0), done.told().to(x0)
            cond = told if cond is None else torch.cat([cond, told], 1)
        return loss(self.denoiser, x0, t, eps, cond=cond, weight=self.weight)

    def files(self) -> dict[str, bytes]:
        """What a checkpoint must hold beside the network and its optimizer."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Put back what `files` took."""

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        """FLOPs of training, a picture: the backward pass takes two forward ones."""
        return 3.0 * _flops(recipe)


class Distillation(Diffusion):
    """Tuning a trained denoiser to draw in a few large steps (Salimans and Ho 2022).

    A step of DDIM leads from x_t to x_s = (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) D. The
    model as it was, the teacher, walks from the same x_t to s in many small steps, with its guidance (Meng et
    al. 2023); learnt is the D that leads at once to where it arrives. Each batch is shared by all steps of
    the recipe's sampling, so the density of levels has no say.

    small: steps of the teacher in each of these. sigma_min: its last noise level sigma/alpha before 0.
    pag, pag_interval: its perturbed-attention guidance, see `PerturbedAttention`; None: everywhere.
    """

    def __init__(
        self,
        *,
        denoiser: NetworkDenoiser,
        recipe: Any,
        runtime: Runtime,
        small: int = 3,
        sigma_min: float = 0.02,
        pag: float = 0.0,
        pag_interval: tuple[float, float] | None = None,
    ):
        super().__init__(denoiser=denoiser, recipe=recipe, runtime=runtime)
        if small < 1 or not sigma_min > 0:
            raise UsageError(f"small = {small}, sigma_min = {sigma_min:g}: choose at least 1 and above 0")
        own, schedule = recipe.sampling, denoiser.schedule
        together = recipe.batch // (runtime.world_size * recipe.accumulate)
        if together < own.steps:
            raise UsageError(
                f"{together} pictures at a time cannot be shared by {own.steps} steps: raise batch"
            )
        self.times = GRIDS.build(own.grid)(schedule, own.steps)
        if not schedule(self.times[0]).log_snr.isfinite():
            raise UsageError("steps from pure noise cannot be learnt: choose the grid log_snr")
        self.walks = [_walk(schedule, t, s, small, sigma_min) for t, s in pairwise(self.times)]
        self.pag, self.interval = pag, pag_interval or EVERYWHERE
        self.teacher: Network | None = None

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> None:
        if self.teacher is None:
            self.teacher = self.copy()

    def copy(self) -> Network:
        """The network as it is now, without what runs it compiled or in parallel."""
        network = next(m for m in self.denoiser.network.modules() if isinstance(m, Network))
        return deepcopy(network).eval().requires_grad_(False)

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None) -> Tensor:
        D, schedule = self.denoiser, self.denoiser.schedule
        assert self.teacher is not None
        teacher = self.guided(self.teacher)
        step = torch.arange(len(x0)) * len(self.walks) // len(x0)
        t, s = self.times[step], self.times[step + 1]
        x_t = diffuse(schedule, x0, t, eps)
        shares = step.bincount(minlength=len(self.walks)).tolist()
        conds = [None] * len(shares) if cond is None else cond.split(shares)
        with torch.no_grad():
            ends = [
                last(unipc(teacher, x, times, Noise(0, [], "distillation"), c)).x
                for x, times, c in zip(x_t.split(shares), self.walks, conds, strict=True)
                if len(x)
            ]
        level_t, level_s = schedule(t), schedule(s)
        kept = level_s.sigma / level_t.sigma
        target = torch.cat(ends) - broadcast(kept, x0) * x_t
        target = target / broadcast(level_s.alpha - level_t.alpha * kept, x0)
        error = (D(x_t, t, cond) - target).square().flatten(1).mean(1)
        # what a prediction of the network is off by, as in `loss`
        return error * (self.weight(level_t) / D.coeffs(t).c_out ** 2).to(error)

    def guided(self, teacher: Network) -> Denoiser:
        """The denoiser of that network, with its guidance."""
        D = NetworkDenoiser(teacher, self.denoiser.parameterization, self.denoiser.schedule)
        attention = teacher.middle_attention()
        if not self.pag or attention is None:  # as in drawing, where a network without attention has no PAG
            return D
        return guided(D, [PerturbedAttention(attention.each_alone, self.pag, self.interval)])

    def files(self) -> dict[str, bytes]:
        return {"teacher.safetensors": pack_tensors((self.teacher or self.copy()).state_dict())}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self.teacher = self.copy()
        self.teacher.load_state_dict(unpack_tensors(files["teacher.safetensors"]))

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        how, own = recipe.method, recipe.sampling
        schedule = SCHEDULES.build(recipe.schedule)
        lo, hi = how["pag_interval"] or EVERYWHERE

        def each(ratio: float) -> int:
            return 1 + (how["pag"] > 0 and lo < ratio <= hi)

        walks = [
            _walk(schedule, t, s, how["small"], how["sigma_min"])
            for t, s in pairwise(GRIDS.build(own.grid)(schedule, own.steps))
        ]
        asked = sum(evaluations(unipc, schedule, walk, each) for walk in walks) / len(walks)
        return (3 + asked) * _flops(recipe)


def _walk(schedule: Schedule, t: Tensor, s: Tensor, steps: int, sigma_min: float) -> Tensor:
    """Times (steps + 1,) from t down to s, even in log SNR; before s = 0 the last is at sigma_min."""
    first = -schedule(t).log_snr / 2
    if s > 0:
        log_sigma = torch.linspace(first, -schedule(s).log_snr / 2, steps + 1, dtype=torch.float64)[:-1]
    else:
        final = math.log(sigma_min)
        log_sigma = torch.linspace(first, final, steps, dtype=torch.float64) if first > final else first[None]
    return torch.cat([schedule.time(-2 * log_sigma), s[None]])


class NoisyClassifier(Diffusion):
    """-log p(c | x_t), at the noise levels that the density draws (Dhariwal and Nichol 2021, 4)."""

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        _alone("classifier", runtime)
        self.classifier = denoiser

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None) -> Tensor:
        assert cond is not None
        return -log_prob(self.classifier, diffuse(self.classifier.schedule, x0, t, eps), t, cond)


class Vae(Diffusion):
    """The negative evidence lower bound (Kingma & Welling 2014, eq. 3)."""

    def __init__(self, *, denoiser: NetworkDenoiser, recipe: Any, runtime: Runtime):
        _alone("vae", runtime)
        assert isinstance(denoiser.network, Autoencoder)
        self.autoencoder = denoiser.network

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None) -> Tensor:
        return self.autoencoder.negative_elbo(x0, eps)

    @staticmethod
    def cost(recipe: "Recipe") -> float:
        return 3.0 * (_flops(recipe) + _encoder_flops(recipe))


class Gan(Diffusion):
    """R3GAN (Huang et al. 2024): a relativistic pairing loss with zero-centred gradient penalties.

    The critic C learns to minimise softplus(C(G(z)) - C(x)), the generator softplus(C(x) - C(G(z))), of a
    drawn and a real picture side by side; C is held flat around both by R1 and R2. Pictures are augmented
    before C sees them, in ways that gradients pass (Zhao et al. 2020), for small data.

    gamma: of the penalties gamma/2 · E |grad C|². every: updates between two penalties, which then count so
    many times (lazy regularisation, Karras et al. 2020). augment: whether C sees augmented pictures.
    """

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
        _alone("gan", runtime)
        if gamma < 0 or every < 1:
            raise UsageError(f"gamma = {gamma:g}, every = {every}: choose at least 0 and at least 1")
        self.generator, self.gamma, self.every, self.batch = denoiser.network, gamma, every, recipe.batch
        self.seen = augmented if augment else lambda x: x
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.critic = _critic(recipe)
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

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Cond | None) -> Tensor:
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
        return 4 * _flops(recipe) + (6 + 3 + 8 / every) * _encoder_flops(recipe)


METHODS = Registry(
    "method",
    {
        "diffusion": Diffusion,
        "distillation": Distillation,
        "classifier": NoisyClassifier,
        "gan": Gan,
        "vae": Vae,
    },
)


def log_prob(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """log p(cond | x_t) (n,) of pictures x (n, c, h, w) at times t (n,), of what is known in cond."""
    return _classifier(classifier).log_prob(*_seen(classifier, x, t), cond)


def said_right(classifier: NetworkDenoiser, x: Tensor, t: Tensor, cond: Cond) -> list[Tensor]:
    """For each field of classes, of which pictures the likeliest is the one in cond: (n,), NaN if unknown."""
    return _classifier(classifier).right(*_seen(classifier, x, t), cond)


def seen_by(classifier: NetworkDenoiser, pictures: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (n, h, w, 3) uint8 as a classifier likes to see them, batch by batch: (x_t, t).

    It has seen few without noise: they have a little, sigma/alpha = 0.1, the same whatever the batch.
    """
    device = next(classifier.parameters()).device
    for at in range(0, len(pictures), 64):
        x0 = to_signal(pictures[at : at + 64]).to(device)
        t = classifier.schedule.time(torch.full((len(x0),), -2 * math.log(0.1), dtype=torch.float64))
        eps = Noise(0, range(at, at + len(x0)), "classifier").normal(0, x0)
        yield diffuse(classifier.schedule, x0, t, eps), t


@torch.no_grad()
def features_of(classifier: NetworkDenoiser, pictures: Tensor) -> Tensor:
    """What a classifier decides by for pictures (n, h, w, 3) uint8, (n, d)."""
    found = []
    for x, t in seen_by(classifier, pictures):
        found.append(_classifier(classifier).features(*_seen(classifier, x, t)).cpu())
    return torch.cat(found)


def _classifier(classifier: NetworkDenoiser) -> Classifier:
    assert isinstance(classifier.network, Classifier)
    return classifier.network


def _seen(classifier: NetworkDenoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    coeffs = classifier.coeffs(t)
    return broadcast(coeffs.c_in, x) * x, coeffs.c_noise.to(x.dtype).to(x.device)


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


def training_flops(recipe: "Recipe") -> float:
    """FLOPs of training, a picture."""
    return METHODS[recipe.method["name"]].cost(recipe)  # type: ignore[attr-defined]


def diffuses(recipe: "Recipe") -> bool:
    """Whether a recipe trains a denoiser: a GAN or a VAE draws in one evaluation, a classifier not at all."""
    return recipe.method["name"] in ("diffusion", "distillation")


def check_denoises(path: Path, recipe: "Recipe", task: str) -> None:
    """Raises UsageError where the model is no denoiser at every noise level. task: what it is wanted for."""
    name = recipe.method["name"]
    if name == "distillation":
        raise UsageError(
            f"{path} was shortened and knows few noise levels: {task} with the model that it was made from"
        )
    if name != "diffusion":
        raise UsageError(f"{path} is a {name}: only diffusion models {task}, for example one of recipe lean")


def check_method(recipe: "Recipe") -> None:
    """Raises UsageError where method and network do not belong together."""
    made_for = {"gan": "generator", "vae": "autoencoder", "classifier": "classifier"}
    method, network = recipe.method["name"], recipe.network["name"]
    denoising = [name for name in NETWORKS if name not in made_for.values()]
    fitting = [made_for[method]] if method in made_for else denoising
    if network not in fitting:
        raise UsageError(f"network = {network!r}: for the method {method!r} choose {' or '.join(fitting)}")
    if recipe.data.augment and method in made_for:
        raise UsageError(f"data.augment is for diffusion, not for the method {method!r}: leave it at 0")


def _critic(recipe: "Recipe") -> nn.Module:
    """The generator the other way round, to one number."""
    return Encoder(3, recipe.network["width"], recipe.network["blocks"], 1)


def _flops(recipe: "Recipe") -> int:
    with torch.device("meta"):
        network = NETWORKS.build(recipe.network, channels=3)
    return flops(network, recipe.data.size)


def _encoder_flops(recipe: "Recipe") -> int:
    with torch.device("meta"):
        encoder = _critic(recipe)
        pictures = torch.empty(1, 3, recipe.data.size, recipe.data.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(pictures)
    return counter.get_total_flops()


def _alone(name: str, runtime: Runtime) -> None:
    if runtime.world_size > 1:
        raise UsageError(f"method {name!r} trains on one process, not on {runtime.world_size}")
