"""Models whose network computes in another way: everything that uses a model uses these alike."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alphabar.diffusion.denoiser import Condition, NetworkDenoiser
from alphabar.diffusion.preconditioning import Preconditioning
from alphabar.inference.openvino import PlainInputs, compile_openvino, stored_openvino
from alphabar.inference.runtime import DTYPES, PLAIN, InferenceRuntime
from alphabar.networks.base import Network
from alphabar.runs.model import Model
from alphabar.runtime import compiled

Engine = Callable[..., Tensor]
"""The inputs of `PlainInputs` -> F, float32 in and out."""


class RuntimeDenoiser(NetworkDenoiser):
    """The denoiser of a network that computes in a runtime.

    What only the network itself can do it does itself, in float32: recording its attention, signals of
    another size, and with OpenVINO gradients.
    """

    def __init__(self, denoiser: NetworkDenoiser, runtime: InferenceRuntime, shape: tuple[int, ...]):
        super().__init__(denoiser.network, denoiser.parameterization, denoiser.schedule, denoiser.coarse)
        self.runtime, self.shape = runtime, shape
        network = denoiser.network
        self._attention = network.middle_attention() if isinstance(network, Network) else None
        self.eval()

    @cached_property
    def _engine(self) -> Engine | None:
        """Built when it is evaluated first: many jobs never evaluate an early network."""
        return None if self.runtime == PLAIN else _engine(self.network, self.runtime, self.shape)

    def predict(self, x: Tensor, coeffs: Preconditioning, cond: Condition | None = None) -> Tensor:
        """F, as `NetworkDenoiser.predict` gives it."""
        differentiated = torch.is_grad_enabled() and x.requires_grad and self.runtime.engine == "openvino"
        looked_into = self._attention is not None and self._attention.recording
        other = tuple(x.shape[1:]) != self.shape or x.dtype != torch.float32
        if self._engine is None or differentiated or looked_into or other:
            return super().predict(x, coeffs, cond)
        signal, c_noise = self.network_input(x, coeffs)
        columns = _columns(self.network)
        inputs = [signal, c_noise]
        if columns:
            unknown = signal.new_full((len(x), columns), torch.nan)
            inputs.append(unknown if cond is None else cond.to(signal))
        elif cond is not None:  # the network says what is wrong with it
            return super().predict(x, coeffs, cond)
        if self._attention is not None:
            rows = self._attention.identity_rows
            inputs.append(signal.new_zeros(len(x)) if rows is None else rows.to(signal))
        return self._engine(*inputs).to(x.dtype)


def with_runtime(model: Model, runtime: InferenceRuntime) -> Model:
    """The model with a network, and an early one where it has that, that computes in a runtime.

    An engine is built at the first evaluation, which raises what one raises that cannot take the network.
    """
    early = model.early and RuntimeDenoiser(model.early, runtime, model.shape)
    return replace(model, denoiser=RuntimeDenoiser(model.denoiser, runtime, model.shape), early=early)


def runtime_of(model: Model) -> InferenceRuntime | None:
    """The runtime that was chosen for a model; None where none was, which computes the plain way."""
    return model.denoiser.runtime if isinstance(model.denoiser, RuntimeDenoiser) else None


_ENGINES: WeakKeyDictionary[nn.Module, dict[InferenceRuntime, Engine]] = WeakKeyDictionary()


def _engine(network: nn.Module, runtime: InferenceRuntime, shape: tuple[int, ...]) -> Engine:
    """The engine of a network, built once in a process: the studio asks again for every picture."""
    built = _ENGINES.setdefault(network, {})
    if runtime not in built:
        if runtime.engine == "openvino":
            model = stored_openvino(network, shape, _columns(network))
            built[runtime] = compile_openvino(model, runtime.precision)
        else:
            built[runtime] = _torch_engine(network, runtime)
    return built[runtime]


def prepare(model: Model, runtime: InferenceRuntime) -> None:
    """Does what is done once for a model and then stands in the cache folder: converting its networks.

    Raises what an engine raises that cannot take them.
    """
    for denoiser in (model.denoiser, model.early):
        if denoiser is not None and runtime.engine == "openvino":
            stored_openvino(denoiser.network, model.shape, _columns(denoiser.network))


def built_runtimes(model: Model) -> frozenset[InferenceRuntime]:
    """The runtimes whose engines this process has built for a model already, and the plain one."""
    return frozenset([PLAIN, *_ENGINES.get(model.denoiser.network, ())])


def _torch_engine(network: nn.Module, runtime: InferenceRuntime) -> Engine:
    # A copy: weights in another memory format would change the bits of the plain way.
    plain = PlainInputs(deepcopy(network), _columns(network)).eval()
    if runtime.channels_last:
        plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device, dtype = next(network.parameters()).device.type, DTYPES[runtime.precision]
    if dtype is not None:
        convolutions = [m for m in plain.modules() if getattr(getattr(m, "weight", None), "ndim", 0) > 2]
        for module in convolutions[:1] + convolutions[-1:]:
            _keep_float32(module, device)
    function = compiled(plain) if runtime.compile else plain

    def run(*inputs: Tensor) -> Tensor:
        n = len(inputs[0])
        # Code is compiled for a batch size; so many sizes are few.
        rows = 1 << (n - 1).bit_length() if runtime.compile else n
        x, *rest = (_padded(value, rows) for value in inputs)
        if runtime.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            found = function(x, *rest)
        # Where kernels are recorded, the next call writes over this one's result.
        return found[:n].float().contiguous().clone() if runtime.compile else found.float().contiguous()

    return run


def _keep_float32(module: nn.Module, device: str) -> None:
    """Makes a module compute in float32 under an autocast.

    The first and the last convolution stand where signals are nearest to pixels: nearly all of the error of a
    lower precision is theirs, and little of the work.
    """
    forward = module.forward

    def in_float32(x: Tensor, *rest: Any) -> Tensor:
        with torch.autocast(device, enabled=False):
            return forward(x.float(), *(r.float() if isinstance(r, Tensor) else r for r in rest))

    module.forward = in_float32  # type: ignore[method-assign]


def _padded(value: Tensor, rows: int) -> Tensor:
    """A tensor (n, ...) with its last row repeated until there are so many."""
    n = len(value)
    return value if n == rows else torch.cat([value, value[-1:].expand(rows - n, *value.shape[1:])])


def _columns(network: nn.Module) -> int:
    """How many columns a condition row of a network has that sampling may give; 0 where it takes none."""
    embed = getattr(network, "embed_cond", None)
    return sum(embed.columns) - embed.of_training if embed is not None else 0
