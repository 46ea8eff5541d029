"""The mathematics of diffusion: it knows tensors, and no network, file or data set."""

from alphabar.diffusion.denoiser import Cond, Denoiser, FunctionDenoiser, NetworkDenoiser, clipped
from alphabar.diffusion.densities import DENSITIES, WEIGHTS, Density, Weight, stratified
from alphabar.diffusion.forward import diffuse, posterior
from alphabar.diffusion.grids import GRIDS, Grid
from alphabar.diffusion.guidance import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)
from alphabar.diffusion.loss import denoising_error, drop_labels, loss
from alphabar.diffusion.noise import Noise, stream_seed
from alphabar.diffusion.parameterizations import PARAMETERIZATIONS, Coeffs, Parameterization
from alphabar.diffusion.samplers import SAMPLERS, Sampler, Step, draw, evaluations, last
from alphabar.diffusion.schedules import (
    SCHEDULES,
    Level,
    Schedule,
    broadcast,
    terminal_snr,
    terminal_warning,
)
from alphabar.diffusion.start import STARTS, PictureStatistics, Start, fit_gaussian

__all__ = [
    "DENSITIES",
    "GRIDS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "STARTS",
    "WEIGHTS",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Coeffs",
    "Cond",
    "Denoiser",
    "Density",
    "FunctionDenoiser",
    "Grid",
    "Guidance",
    "Level",
    "NetworkDenoiser",
    "Noise",
    "Parameterization",
    "PerturbedAttention",
    "PictureStatistics",
    "Sampler",
    "Schedule",
    "SelfAttentionGuidance",
    "Start",
    "Step",
    "Weight",
    "broadcast",
    "clipped",
    "denoising_error",
    "diffuse",
    "draw",
    "drop_labels",
    "evaluations",
    "fit_gaussian",
    "guided",
    "last",
    "loss",
    "posterior",
    "stratified",
    "stream_seed",
    "terminal_snr",
    "terminal_warning",
]
