"""The mathematics of diffusion: it knows tensors, and no network, file or data set."""

from alphabar.diffusion.denoiser import Condition, Denoiser, FunctionDenoiser, NetworkDenoiser, clipped
from alphabar.diffusion.forward import diffuse, posterior
from alphabar.diffusion.initial_noise import INITIAL_NOISES, DataStatistics, InitialNoise, fit_gaussian
from alphabar.diffusion.loss import denoising_error, drop_labels, loss
from alphabar.diffusion.noise_distributions import (
    NOISE_DISTRIBUTIONS,
    WEIGHTS,
    NoiseDistribution,
    Weight,
    stratified,
)
from alphabar.diffusion.preconditioning import PARAMETERIZATIONS, Parameterization, Preconditioning
from alphabar.diffusion.random import Noise, stream_seed
from alphabar.diffusion.samplers import SAMPLERS, Sampler, Step, count_nfe, generate, last_step
from alphabar.diffusion.schedules import SCHEDULES, Level, Schedule, broadcast, terminal_snr, terminal_warning
from alphabar.diffusion.timesteps import TIMESTEPS, Timesteps
from alphabar.guidance.guided import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    PerturbedAttention,
    SelfAttentionGuidance,
    guided,
)

__all__ = [
    "NOISE_DISTRIBUTIONS",
    "TIMESTEPS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "INITIAL_NOISES",
    "WEIGHTS",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Preconditioning",
    "Condition",
    "Denoiser",
    "NoiseDistribution",
    "FunctionDenoiser",
    "Timesteps",
    "Guidance",
    "Level",
    "NetworkDenoiser",
    "Noise",
    "Parameterization",
    "PerturbedAttention",
    "DataStatistics",
    "Sampler",
    "Schedule",
    "SelfAttentionGuidance",
    "InitialNoise",
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
