"""Models to restore with: an untrained network, and one that is exact for Gaussian images."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from alphabar.diffusion.initial_noise import DataStatistics
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.restoration.operators.base import Operator
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import restoration_settings
from alphabar.runs.model import Model, build_denoiser, load_model, write_model_folder
from alphabar.tensor_files import pack_tensors
from exact import GaussianDenoiser

SIZE = 16


def untrained(folder: Path, *settings: str) -> Model:
    """A model with the weights that training begins from; images are 16 × 16 unless a setting says so."""
    small = ["data.size=16", "network.widths=[16,32]", "network.attention=0", *settings]
    recipe = with_settings(named_recipe("ddpm"), small)
    denoiser = build_denoiser(recipe)
    model = Model(denoiser, recipe, DataStatistics(torch.zeros(1), torch.zeros(1)), 0, folder)
    statistics = DataStatistics(torch.zeros(model.shape), torch.eye(64 * model.shape[0]))
    tensors = {"model": denoiser.network.state_dict(), "statistics": statistics._asdict()}
    files = {f"{name}.safetensors": pack_tensors(values) for name, values in tensors.items()}
    write_model_folder(folder / "model", recipe, 0, files)
    return load_model(folder / "model")


def attending(model: Model, *settings: str) -> Model:
    """The model with a network that has self-attention, with noise on its weights."""
    small = ["data.size=16", "network.widths=[8,16]", "network.head_dim=8"]
    recipe = with_settings(named_recipe("lean"), [*small, *settings])
    denoiser = build_denoiser(recipe).eval().requires_grad_(False)
    for parameter in denoiser.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return replace(model, recipe=recipe, denoiser=denoiser)


def gaussian_images(channels: int = 3, size: int = SIZE, scale: float = 4.0) -> tuple[Tensor, Tensor]:
    """Mean (d,), covariance (d, d) of smooth images whose colours are mostly alike; pixels have std 0.3."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    at = torch.stack([x.flatten(), y.flatten()], 1)
    smooth = torch.exp(-torch.cdist(at, at) / scale)
    alike = 0.1 * torch.eye(channels, dtype=torch.float64) + 0.9
    mean = (0.2 * torch.sin(at[:, 0] / 3)).repeat(channels)
    return mean, 0.3**2 * torch.kron(alike, smooth)


class ExactNetwork(nn.Module):
    """The exact denoiser of Gaussian images, in the place of a network's."""

    def __init__(self, schedule, mean: Tensor, cov: Tensor):
        super().__init__()
        self.exact, self.network = GaussianDenoiser(schedule, mean, cov), None
        self.weight = nn.Parameter(torch.zeros(1))  # says where the model lies

    @property
    def schedule(self):
        """The schedule of the denoiser."""
        return self.exact.schedule

    def forward(self, x, t, cond=None):
        """E[x0 | x_t]."""
        return self.exact(x, t)


def exact_model(model: Model) -> Model:
    """A model that knows the distribution of `gaussian_images` of its own shape exactly."""
    channels, size, _ = model.shape
    mean, cov = gaussian_images(channels, size)
    statistics = model.statistics._replace(mean=mean.reshape(model.shape).float())
    return replace(model, denoiser=ExactNetwork(model.denoiser.schedule, mean, cov), statistics=statistics)


def restored(model: Model, y: Tensor, operator: Operator, sigma_y: float = 0.0, **given) -> Tensor:
    """The result (n, b, *shape) of `restore` in three steps; given: its n and first, and settings."""
    of_restore = {key: given.pop(key) for key in ("n", "first") if key in given}
    settings = restoration_settings(model, operator, sigma_y, steps=3, **given)
    return last(restore(model, y, operator, sigma_y, settings=settings, **of_restore))
