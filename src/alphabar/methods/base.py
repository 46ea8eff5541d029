"""Methods: what a training minimises, and what its result can do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alphabar.codecs import build_codec
from alphabar.diffusion.denoiser import Condition
from alphabar.errors import UsageError
from alphabar.messages import message
from alphabar.networks import NETWORKS
from alphabar.networks.base import flops
from alphabar.networks.encoder_decoder import Encoder
from alphabar.runtime import Runtime


class Choices(Protocol):
    """What a method reads of a recipe. `alphabar.recipes.schema.Recipe` describes the sections."""

    @property
    def data(self) -> Any:
        """Codec, size, channels, augment."""
        ...

    @property
    def method(self) -> Mapping[str, Any]:
        """Name and settings of the method, resolved."""
        ...

    @property
    def network(self) -> Mapping[str, Any]:
        """Name and settings of the network, resolved."""
        ...

    @property
    def condition(self) -> Any:
        """What samples are conditioned on: on, drop."""
        ...

    @property
    def schedule(self) -> Mapping[str, Any]:
        """Name and settings of the schedule, resolved."""
        ...

    @property
    def weight(self) -> Mapping[str, Any]:
        """Name and settings of the loss weight, resolved."""
        ...

    @property
    def optimizer(self) -> Any:
        """Learning_rate, betas and more."""
        ...

    @property
    def sampling(self) -> Any:
        """Sampler, timesteps, steps, initial_noise."""
        ...

    @property
    def batch(self) -> int:
        """Samples of one update, over all processes."""
        ...

    @property
    def accumulate(self) -> int:
        """Equal pieces of a batch on one process."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


class Method(ABC):
    """What a training minimises. The attributes of the class say what the trained model can do.

    A method is built with the keywords ``denoiser`` (what is trained), ``recipe`` (`Choices`) and
    ``runtime``; its other keywords are its settings in a recipe.

    name: in the registry `METHODS`.
    denoises: its network is a denoiser at every noise level, so that it can be guided, edit and restore.
    trains_denoiser: its loss goes through the denoiser alone, which may therefore be compiled, compute in
        fp16 and run on several processes; its samples come from noise in one or more steps.
    samples: it generates samples. one_step: in one evaluation of the network.
    fixed_sampling: only with its recipe's own sampler, timesteps and number of steps.
    reconstructs: it makes latents of clean samples and samples of latents.
    classifies: it predicts labels of noisy samples. needs_condition: it cannot be trained without labels.
    needs_trained_weights: its training begins with the weights of a trained model.
    networks: the names of the networks made for it; empty for those of denoisers.
    """

    name: ClassVar[str]
    denoises: ClassVar[bool] = False
    trains_denoiser: ClassVar[bool] = False
    samples: ClassVar[bool] = True
    one_step: ClassVar[bool] = False
    fixed_sampling: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    needs_condition: ClassVar[bool] = False
    needs_trained_weights: ClassVar[bool] = False
    networks: ClassVar[tuple[str, ...]] = ()

    def prepare(self, x0: Tensor, eps: Tensor, images: int, share: float, learning_rate: float) -> bool:
        """Whatever has to happen before an update of the network, such as an update of a second one.

        x0, eps: the signals of the batch and their noise, (n, ...). images: seen so far; share: of the
        training that is done, in [0, 1]; learning_rate: of the update.
        Returns False where the network is not to be updated either, because a loss or gradient of the second
        one is not finite.
        """
        return True

    def prepared_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that `prepare` updates, by name; their gradients stay until the next `prepare`."""
        return {}

    def undo_prepare(self) -> None:  # noqa: B027
        """Puts back what the last `prepare` changed, where the update of the network is left out."""

    @abstractmethod
    def losses(self, x0: Tensor, t: Tensor, eps: Tensor, cond: Condition | None) -> Tensor:
        """The losses (n,) of the signals x0 (n, ...) at times t (n,) with noise eps (n, ...)."""

    def state_files(self) -> dict[str, bytes]:
        """What a checkpoint must hold beside the network and its optimizer: file name → bytes."""
        return {}

    def load_state(self, files: Mapping[str, bytes]) -> None:  # noqa: B027
        """Puts back what `state_files` took."""

    @classmethod
    def training_flops(cls, recipe: Choices) -> float:
        """Floating-point operations of training for one sample; a backward pass takes twice a forward."""
        return 3.0 * network_flops(recipe)

    @classmethod
    def require_denoiser(cls, path: Path, task: str) -> None:
        """Raises UsageError where a model of this method is no denoiser at every noise level.

        path: of the model. task: what it is wanted for, "edit" or "restore".
        """
        if cls.denoises:
            return
        wanted = message(f"methods.task_{task}")
        if cls.fixed_sampling:
            raise UsageError("methods.distilled_denoiser", path=path, task=wanted)
        raise UsageError("methods.no_denoiser", path=path, method=cls.name, task=wanted)


def network_flops(recipe: Choices) -> int:
    """Floating-point operations of one forward pass of the recipe's network for one sample."""
    codec = build_codec(recipe.data)
    with torch.device("meta"):
        network = NETWORKS.build(recipe.network, channels=codec.channels)
    return flops(network, codec.spatial)


def build_encoder(recipe: Choices) -> nn.Module:
    """The convolutional encoder that mirrors the recipe's decoder, from a signal to one number."""
    return Encoder(build_codec(recipe.data).channels, recipe.network["width"], recipe.network["blocks"], 1)


def encoder_flops(recipe: Choices) -> int:
    """Floating-point operations of one forward pass of `build_encoder` for one sample."""
    with torch.device("meta"):
        encoder = build_encoder(recipe)
        signals = torch.empty(1, *build_codec(recipe.data).shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(signals)
    return counter.get_total_flops()


def require_single_process(method: type[Method], runtime: Runtime) -> None:
    """Raises UsageError where a method that trains on one process is to run on several."""
    if runtime.world_size > 1:
        raise UsageError("methods.single_process", method=method.name, processes=runtime.world_size)
