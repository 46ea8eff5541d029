"""The recipes that come with alphabar."""

from typing import Any

from alphabar.errors import unknown
from alphabar.recipes.overrides import enlarged
from alphabar.recipes.schema import Recipe, make_recipe
from alphabar.registry import Registry


def classic() -> Recipe:
    """The DDPM of a student's notebook, with all its constants.

    Linear beta from 1e-4 to 0.02 in T = 300 steps, eps-prediction, plain MSE, a U-Net with BatchNorm and no
    attention, Adam at 1e-3, no EMA, the whole image squashed to 64×64, x clamped to [-1, 1] after every
    reverse step. Its alpha_bar_T is 0.048, so sampling starts from noise that training never reached.
    """
    steps = 300
    return make_recipe(
        {
            "name": "classic",
            "data": {"size": 64, "fit": "squash", "flip": True},
            "schedule": {"name": "linear_beta", "steps": steps, "beta_min": 1e-4, "beta_max": 0.02},
            "parameterization": "eps",
            "noise_distribution": {"name": "uniform", "discrete": steps},
            "network": {
                "name": "tutorial_unet",
                "widths": (64, 128, 256, 512),
                "time_dim": 32,
                "steps": steps,
            },
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
            "sampling": {
                "sampler": {"name": "ancestral", "clamp": True},
                "timesteps": "uniform",
                "steps": steps,
            },
            "batch": 128,
            "images": 814_400,  # 100 epochs of the 8,144 training pictures
        }
    )


def ddpm() -> Recipe:
    """The papers' choices (Ho et al. 2020; Nichol & Dhariwal 2021).

    A cosine schedule that ends in pure noise, T = 1000, a U-Net with GroupNorm and attention, warm-up,
    clipped gradients and an EMA whose length suits short runs. The network predicts v: x0 from a predicted
    eps would need a division by alpha, which the cosine schedule takes close to zero. Sampled with
    DPM-Solver++(2M) in 20 steps.
    """
    steps = 1000
    return make_recipe(
        {
            "name": "ddpm",
            "data": {"size": 64, "fit": "squash", "flip": True},
            "schedule": "cosine",
            "parameterization": "v",
            "noise_distribution": {"name": "uniform", "discrete": steps},
            "stratified": True,
            "network": "unet",
            "optimizer": {"name": "adam", "learning_rate": 2e-4, "warm_up": 10_000, "clip": 1.0},
            "ema": {"half_life": 500_000},
            "sampling": {"sampler": "dpmpp_2m", "timesteps": "log_snr", "steps": 20},
            "batch": 128,
            "images": 2_000_000,
        }
    )


def edm() -> Recipe:
    """EDM (Karras et al. 2022) with EDM2's network (Karras et al. 2024), trained by Muon.

    The noise grows to sigma = 80, noise levels are log-normal, the network is magnitude-preserving.
    Finetuning can continue it in a wider network.
    """
    return make_recipe(
        {
            "name": "edm",
            "schedule": {"name": "variance_exploding", "sigma_min": 0.002, "sigma_max": 80.0},
            "parameterization": {"name": "edm", "sigma_data": 0.5},
            "noise_distribution": {"name": "log_normal", "mean": -0.8, "std": 1.4},
            "network": {"name": "mp_unet", "widths": (64, 128, 256)},
            **_for_short_runs(learning_rate=0.15, timesteps="linear_beta"),
        }
    )


def lean() -> Recipe:
    """The best quality for little compute: a small U-Net on blocks of pixels, trained by Muon.

    Muon: Jordan et al. 2024. A cosine schedule down to pure noise; the network predicts v. Most noise levels
    of the training lie where the shapes of an image appear, and only there, in four steps of ten,
    perturbed-attention guidance (Ahn et al. 2024) acts on samples. Each choice was compared with others at
    equal time: docs/results/ablations.md and quality_vs_compute.md.
    """
    return make_recipe(
        {
            "name": "lean",
            "schedule": "cosine",
            "parameterization": "v",
            "noise_distribution": {"name": "log_normal", "mean": -0.4, "std": 0.9, "uniform_share": 0.1},
            "network": {"name": "unet", "widths": (64, 128, 256), "patch": 2, "attention": 1},
            **_for_short_runs(
                learning_rate=0.004,
                timesteps={"name": "log_snr", "sigma_min": 0.15},
                guidance=[{"name": "pag", "scale": 4.0, "interval": (0.2, 2.5)}],
            ),
        }
    )


def nested() -> Recipe:
    """`lean` for pictures of 128 px: its network for means over 2×2 pixels, and a small one for the detail.

    `enlarged` makes it of `lean`. Compared with other ways: docs/results/larger_images.md.
    """
    values = enlarged(lean(), 2).model_dump(mode="json")
    values["data"] |= {"size": 128}
    return make_recipe(values | {"name": "nested"})


def classifier() -> Recipe:
    """A classifier of noisy images, for classifier guidance (Dhariwal & Nichol 2021).

    It predicts what ``condition.on`` names. It is trained with the noise of `edm` and guides models of any
    schedule.
    """
    return make_recipe(
        {
            "name": "classifier",
            "data": {"size": 64, "fit": "squash", "flip": True},
            "method": "classifier",
            "condition": {"drop": 0.0},
            "schedule": {"name": "variance_exploding", "sigma_min": 0.002, "sigma_max": 80.0},
            "parameterization": {"name": "edm", "sigma_data": 0.5},
            "noise_distribution": {"name": "log_normal", "mean": -0.8, "std": 1.4},
            "stratified": True,
            "network": "classifier",
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "weight_decay": 0.05,
                "warm_up": 2_000,
                "decay_from": 0.6,
            },
            "ema": {"half_life": 50_000},
            "sampling": {"sampler": "euler", "timesteps": "log_snr", "steps": 1},
            "monitor": {"levels": 512},
            "batch": 64,
            "images": 200_000,
        }
    )


def gan() -> Recipe:
    """A modern GAN for small data sets: R3GAN's loss (Huang et al. 2024), augmented images for the critic.

    Its generator takes the place of the denoiser and makes an image of pure noise in one evaluation. About
    half of the compute goes into the critic, which is as large. Its quality depends on the number of updates
    rather than of
    images, so batches are small: docs/results/comparison.md.
    """
    return make_recipe(
        {
            "name": "gan",
            "method": "gan",
            "network": {"name": "generator", "width": 16},
            "optimizer": {"name": "adam", "learning_rate": 3.5e-4, "betas": (0.0, 0.99), "decay_from": 0.6},
            **_ONE_STEP,
            "batch": 8,
        }
    )


def vae() -> Recipe:
    """A variational autoencoder (Kingma & Welling 2014) that learns the variance of pixels (sigma-VAE)."""
    return make_recipe(
        {
            "name": "vae",
            "method": "vae",
            "network": {"name": "vae", "width": 24},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "warm_up": 1_000, "decay_from": 0.6},
            **_ONE_STEP,
        }
    )


def latent() -> Recipe:
    """Latent diffusion (Rombach et al. 2022): an autoencoder of one's own, and `lean` on its latents.

    The autoencoder is trained first, in a part of the budget or on as many images. Standardised latents vary
    twice as much as pictures, so noise levels are twice those of `lean`.
    """
    return make_recipe(
        {
            "name": "latent",
            "schedule": "cosine",
            "parameterization": "v",
            "noise_distribution": {"name": "log_normal", "mean": 0.3, "std": 0.9, "uniform_share": 0.1},
            "network": {"name": "unet", "widths": (64, 128, 256), "attention": 1},
            **_for_short_runs(
                learning_rate=0.004,
                timesteps={"name": "log_snr", "sigma_min": 0.15},
                guidance=[{"name": "pag", "scale": 4.0, "interval": (0.4, 5.0)}],
            ),
            "data": {"codec": "latent", "size": 128, "fit": "squash", "flip": True},
        }
    )


def autoencoder() -> Recipe:
    """The autoencoder of latent diffusion: pictures to latents of a quarter of the sides, and back.

    Nothing of it is downloaded. As of a GAN, its quality depends on the number of updates rather than of
    images, so batches are small: docs/results/larger_images.md.
    """
    return make_recipe(
        {
            "name": "autoencoder",
            "method": "autoencoder",
            "network": "autoencoder",
            **_ONE_STEP,
            "optimizer": _for_short_runs(learning_rate=0.003)["optimizer"],
            "data": {"size": 128, "fit": "squash", "flip": True},
            "ema": {"half_life": 20_000},
            "monitor": {"samples": 12, "levels": 0, "distance": 128, "steps": 1},
            "batch": 4,
            "images": 200_000,
        }
    )


def _for_short_runs(learning_rate: float, **sampling: Any) -> dict[str, Any]:
    """What recipes for short runs share. sampling: its settings besides sampler and steps.

    Batches are small, because a short run needs many updates more than it needs smooth ones. Warm-up, decay
    of the learning rate and EMA are counted in images or as shares of the run: those of the papers are longer
    than a whole run here. Noise levels are spread evenly over each batch.
    """
    return {
        "data": {"size": 64, "fit": "squash", "flip": True},
        "stratified": True,
        "optimizer": {
            "name": "muon",
            "learning_rate": learning_rate,
            "betas": (0.9, 0.99),
            "warm_up": 1_000,
            "decay_from": 0.6,
        },
        "ema": {"half_life": 500_000, "snapshots": 8},
        "sampling": {"sampler": {"name": "unipc", "order": 2}, "steps": 10, **sampling},
        "batch": 32,
        "images": 1_000_000,
    }


# What recipes share whose network makes an image of pure noise in one evaluation.
_ONE_STEP = {
    "data": {"size": 64, "fit": "squash", "flip": True},
    "schedule": "rectified_flow",
    "parameterization": "x0",
    "noise_distribution": "uniform",
    "ema": {"half_life": 500_000},
    "sampling": {"sampler": "euler", "timesteps": "uniform", "steps": 1},
    "monitor": {"levels": 0, "steps": 1},
    "batch": 32,
    "images": 1_000_000,
}


RECIPES = Registry(
    "recipe",
    {
        "classic": classic,
        "ddpm": ddpm,
        "edm": edm,
        "lean": lean,
        "nested": nested,
        "classifier": classifier,
        "gan": gan,
        "vae": vae,
        "autoencoder": autoencoder,
        "latent": latent,
    },
)


def named_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UsageError with the nearest name where there is none."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
