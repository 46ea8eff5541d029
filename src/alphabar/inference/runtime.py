"""The ways in which a trained network may compute: engine, precision, memory format, compilation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import product
from typing import Any

import torch

from alphabar.errors import AlphabarError, UsageError, unknown
from alphabar.inference import openvino
from alphabar.messages import Message, message
from alphabar.runtime import describe_machine

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions, and the type of PyTorch's autocast for each; None is float32 throughout."""

AUTO = "auto"
"""What a person gives for the precision that is fastest here."""


@dataclass(frozen=True)
class InferenceRuntime:
    """How a network computes outside training. ``InferenceRuntime()`` is the plain way: float32 in PyTorch.

    engine: "torch" or "openvino". precision: a key of `DTYPES`. channels_last: whether network and images
    have this memory format. compile: whether calls go through torch.compile.
    """

    engine: str = "torch"
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    @property
    def name(self) -> str:
        """Such as "openvino bf16" or "torch bf16 channels_last compile"."""
        further = [name for name in ("channels_last", "compile") if getattr(self, name)]
        return " ".join([self.engine, self.precision, *further])

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return asdict(self)

    def describe(self, device: torch.device) -> str:
        """What the exact bits depend on besides these fields: the machine and the engine's version."""
        machine = describe_machine(str(device))
        return f"{machine}, openvino {version('openvino')}" if self.engine == "openvino" else machine


PLAIN = InferenceRuntime()
"""float32, contiguous, eager in PyTorch: what every other way is checked against."""


def read_runtime(values: Any) -> InferenceRuntime:
    """The runtime in a dictionary that `InferenceRuntime.to_dict` gave, among other values.

    Raises UsageError for anything else.
    """
    possible: dict[str, tuple[Any, ...]] = {
        "engine": ("torch", "openvino"),
        "precision": tuple(DTYPES),
        "channels_last": (False, True),
        "compile": (False, True),
    }
    given = values if isinstance(values, Mapping) else {}
    for key, known in possible.items():
        value = given.get(key)
        if not any(value == one and type(value) is type(one) for one in known):
            raise UsageError("inference.not_a_runtime", key=key, value=repr(value))
    return InferenceRuntime(**{field.name: given[field.name] for field in fields(InferenceRuntime)})


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError for a precision that does not exist or that the device lacks."""
    if precision not in (AUTO, *DTYPES):
        raise unknown("precision", precision, [AUTO, *DTYPES])
    if precision != AUTO and precision not in precisions(device):
        here = ", ".join([*precisions(device), AUTO])
        raise UsageError("inference.lacks_precision", precision=precision, device=device.type, here=here)


def precisions(device: torch.device) -> list[str]:
    """The precisions in which a device computes by itself, float32 first."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["fp32", *(["bf16"] if has_bf16 else []), "fp16"]
    if device.type != "cpu":
        return ["fp32"]
    found = openvino.capabilities() if openvino.installed() else set()
    if torch.cpu._is_avx512_bf16_supported():
        found.add("bf16")
    return [name for name in DTYPES if name == "fp32" or name in found]


def candidates(device: torch.device, gradients: bool) -> list[InferenceRuntime]:
    """What is worth measuring on a device, the simplest first; the plain way is always among them.

    gradients: whether the network is differentiated, which OpenVINO does not do. None of them is compiled.
    """
    known, found = precisions(device), [PLAIN]
    if device.type != "mps":
        # On a CPU PyTorch's fp16 is emulated, whatever OpenVINO can do there.
        in_torch = [name for name in known if name != "fp16" or device.type == "cuda"]
        found += [InferenceRuntime("torch", p, last) for p, last in product(in_torch, (False, True))]
    if device.type == "cpu" and not gradients and openvino.installed():
        found += [InferenceRuntime("openvino", p) for p in known]
    return list(dict.fromkeys(found))


def missing(runtime: InferenceRuntime, device: torch.device) -> Message | None:
    """What this machine lacks for a runtime, as a sentence; None where nothing is."""
    if runtime.engine == "openvino" and not openvino.installed():
        return AlphabarError("inference.no_openvino").message  # type: ignore[return-value]
    if runtime.precision not in precisions(device) or (runtime.engine == "openvino" and device.type != "cpu"):
        here = ", ".join(precisions(device))
        return message("inference.lacks", runtime=runtime.name, device=device.type, here=here)
    return None
