"""A network as a model of OpenVINO, an inference engine for CPUs: the one place where it is converted."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alphabar.data.dataset import cache_root
from alphabar.errors import AlphabarError
from alphabar.files import read_folder, remove_folder, warn_of_cache, write_folder, writing
from alphabar.networks.base import Network
from alphabar.networks.layers import Attention

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""The names of precisions, and what OpenVINO calls them."""

TRACED = 3  # signals in the batch that is traced; the model takes any number
KEPT = 8  # converted networks in the cache folder, the newest


class PlainInputs(nn.Module):
    """A network as a function of tensors alone, which can be traced: ``f(*inputs) -> F``.

    names: of the inputs, all float32: "x" (n, channels, *spatial); "c_noise" (n,); "cond" (n, columns), NaN
    where unknown, for a network that takes a condition; "identity" (n,), 1 in the rows in which the middle
    attention is the identity (perturbed-attention guidance) and 0 elsewhere, for one that has that attention.
    """

    def __init__(self, network: nn.Module, columns: int):
        super().__init__()
        self.network = network
        self.columns = columns
        self.attention: Attention | None = (
            network.middle_attention() if isinstance(network, Network) else None
        )

    @property
    def names(self) -> list[str]:
        """The names of the inputs, in their order."""
        optional = {"cond": self.columns, "identity": self.attention}
        return ["x", "c_noise", *(name for name, there in optional.items() if there)]

    def forward(self, *inputs: Tensor) -> Tensor:
        """F (n, channels, *spatial)."""
        given = dict(zip(self.names, inputs, strict=True))
        arguments = (given["x"], given["c_noise"], given.get("cond"))
        if self.attention is None:
            return self.network(*arguments)
        with self.attention.identity_attention(given["identity"] > 0.5):
            return self.network(*arguments)


def installed() -> bool:
    """Whether OpenVINO is there; importing it takes a third of a second."""
    return find_spec("openvino") is not None


def capabilities() -> set[str]:
    """The precisions that OpenVINO computes in on this CPU, of those in `PRECISIONS`."""
    import openvino

    names = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16"}
    found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {names[name] for name in found if name in names}


def to_openvino(network: nn.Module, shape: Sequence[int], columns: int) -> Any:
    """A network in evaluation mode as an ``openvino.Model`` in float32, for batches of any size.

    Its inputs are those of `PlainInputs`, by name; its output is "F". shape: of a signal, (channels,
    *spatial). columns: of a condition row; 0 for a network that takes no condition.
    Raises AlphabarError where OpenVINO is not installed, and what it raises where it cannot convert.
    """
    if not installed():
        raise AlphabarError("inference.no_openvino")
    import openvino

    plain = PlainInputs(network, columns).eval()
    shapes = {"x": tuple(shape), "c_noise": (), "cond": (columns,), "identity": ()}
    # Some rows with the attention and some without, or the tracer would take one of the two for granted.
    example = {name: torch.rand(TRACED, *shapes[name]) for name in plain.names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about checks of shapes, which are not part of the model
        model = openvino.convert_model(plain, example_input=tuple(example.values()))
    model.reshape({port: [-1, *shapes[name]] for port, name in zip(model.inputs, plain.names, strict=True)})
    for port, name in zip((*model.inputs, *model.outputs), (*plain.names, "F"), strict=True):
        port.get_tensor().set_names({name})
    return model


def stored_openvino(network: nn.Module, shape: Sequence[int], columns: int) -> Any:
    """What `to_openvino` gives, from the cache folder where it is there: reading takes a tenth of the time.

    It is stored for these weights and versions, in a folder that is whole or not there; what is damaged is
    converted again. Arguments, and what is raised, as for `to_openvino`.
    """
    if not installed():
        raise AlphabarError("inference.no_openvino")
    import openvino

    path = cache_root() / "openvino" / _key(network, shape, columns)
    files: Mapping[str, bytes] = {}
    with suppress(AlphabarError):
        files = read_folder(path)
    if not files and path.exists():
        warn_of_cache(path)
    if set(files) != {"network.xml", "network.bin"}:
        files = _serialized(to_openvino(network, shape, columns))
        with suppress(AlphabarError):  # a cache that cannot be written only costs time
            write_folder(path, files)
            _remove_old(path.parent)
    # What was converted just now is read too, so that the bits do not depend on what the cache held.
    return openvino.Core().read_model(files["network.xml"], files["network.bin"])


def _key(network: nn.Module, shape: Sequence[int], columns: int) -> str:
    """A name for a network, its weights, and the versions of what converts it."""
    versions = {name: version(name) for name in ("alphabar", "openvino", "torch")}
    made_from = {"versions": versions, "network": repr(network), "shape": list(shape), "columns": columns}
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _serialized(model: Any) -> dict[str, bytes]:
    """A model as the files that OpenVINO reads, its weights in float32."""
    import openvino

    with tempfile.TemporaryDirectory() as folder, writing(Path(folder)):
        file = Path(folder) / "network.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("network.xml", "network.bin")}


def _remove_old(folder: Path) -> None:
    """Leaves the newest networks in the cache folder; another process may remove the same."""
    with suppress(OSError):
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            remove_folder(old)


def compile_openvino(model: Any, precision: str) -> Callable[..., Tensor]:
    """The function of an ``openvino.Model`` on the CPU, from float32 tensors to a float32 tensor.

    precision: in which it computes inside, a key of `PRECISIONS`. As many threads as PyTorch has.
    """
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run(*inputs: Tensor) -> Tensor:
        found = compiled([value.detach().contiguous().numpy() for value in inputs])
        return torch.tensor(found[0])

    return run
