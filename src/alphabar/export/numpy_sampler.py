"""What the targets ONNX and OpenVINO share: networks, the plan of the sampling, and a sampler in NumPy."""

import hashlib
import importlib.util
import io
import json
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from alphabar.codecs.latent import LatentCodec
from alphabar.errors import UsageError
from alphabar.export.base import Export, MakeItems, Target, require_modules
from alphabar.export.plan import Plan, sampling_plan
from alphabar.export.quantization import calibration_inputs, choose_float_layers
from alphabar.files import interpreting, write_file, writing
from alphabar.inference.openvino import PlainInputs
from alphabar.messages import message
from alphabar.progress import Progress

SCRIPT = "generate.py"
ALPHA = (
    "    levels[:, :3] = np.where(levels[:, 3:] > 0.5, levels[:, :3] * 255 / np.rint(levels[:, 3:]).clip(1),"
    " 0).clip(0, 255)\n"
)
HELP = '        help="of all pictures (default: in turn those of training pictures)")'
COARSE = (  # the coarse picture enlarged, and the detail, which the network predicts itself
    '        D = a["rows"] @ D @ a["columns"] + F - a["mean_rows"] @ F @ a["mean_columns"]\n'
)
DECODER = "decoder"
DECODED = f'networks["{DECODER}"]({{"x": x.astype("f"), "c_noise": np.zeros(len(x), "f")}})[0]'


class AtAnyNoise(nn.Module):
    """A network that ignores the noise level, with that input all the same: tracing would leave it out."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """What the network makes of x (n, channels, h, w)."""
        return self.network(x, c_noise, cond) + 0 * c_noise[:, None, None, None]


class Decoding(nn.Module):
    """The decoder of a codec of latents as a network, whose noise level counts nothing."""

    def __init__(self, codec: LatentCodec):
        super().__init__()
        self.codec = codec

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """The signals of the pictures of latents x (n, channels, h, w)."""
        return self.codec.picture_signals(x) + 0 * c_noise[:, None, None, None]


class NumpySampler(Target):
    """A folder with the networks, sampling.json, arrays.npz and a script that generates from them.

    engine: the lines of the script that load the networks. requirements: the packages that it needs.
    suffix: of the network's main file.
    """

    engine: ClassVar[str]
    requirements: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def convert(
        self, export: Export, plain: PlainInputs, examples: Mapping[str, np.ndarray] | None, floats: list[str]
    ) -> Mapping[str, bytes]:
        """The files of a network by suffix, the main one first.

        plain: the network, on the CPU in float32. examples: inputs by name, rows along a sampling, for int8;
        floats: the names of the layers that stay in float then.
        """

    def settings(self, precision: str) -> dict[str, Any]:
        """What the engine is told when it loads a network, as JSON holds it."""
        return {}

    def check(self, export: Export) -> None:
        """Raises as `Target.check` does, and for what cannot be sampled with NumPy."""
        super().check(export)
        if export.precision == "int8":
            require_modules(("nncf",), self.extra)
        _check_noise(export.model.shape)
        sampling_plan(export)

    def write(self, export: Export, folder: Path) -> Iterator[Progress[Mapping[str, Any]]]:
        """Writes the networks, the plan and the script."""
        plan = sampling_plan(export)
        for array, value in plan.arrays.items():
            if array == "core":
                _check_noise(value.shape[:1])
        stage = message("export.writing")
        yield Progress(stage, 0, 2)
        columns = sum(export.model.vocabulary.widths) if export.model.vocabulary else 0
        denoisers = {"network": export.model.denoiser}
        if any(term["network"] == "early" for step in plan.document["steps"] for term in step["terms"]):
            assert export.model.early is not None
            denoisers["early"] = export.model.early
        written: dict[str, bytes] = {}
        about: dict[str, Any] = {}
        for i, (name, denoiser) in enumerate(denoisers.items()):
            one_step = export.model.method.one_step
            network = AtAnyNoise(denoiser.network) if one_step else denoiser.network
            plain = PlainInputs(network, columns).eval()
            examples = None
            floats: list[str] = []
            if export.precision == "int8":
                examples = calibration_inputs(export, denoiser.network, plain.names)
                yield Progress(message("export.calibrating"), i, len(denoisers))
                floats, errors = choose_float_layers(plain, examples)
                about |= {"float_layers": floats, "layer_errors": errors}
            for suffix, data in self.convert(export, plain, examples, floats).items():
                written[f"{name}{suffix}"] = data
        networks = {name: f"{name}{self.suffix}" for name in denoisers}
        if isinstance(codec := export.model.codec, LatentCodec):  # in float32: what it loses is seen at once
            decoding = PlainInputs(Decoding(codec), 0).eval()
            for suffix, data in self.convert(replace(export, precision="fp32"), decoding, None, []).items():
                written[f"{DECODER}{suffix}"] = data
            networks[DECODER] = f"{DECODER}{self.suffix}"
        yield Progress(stage, 1, 2)
        self._write_files(export, plan, folder, written, networks, plain.names)
        yield Progress(stage, 2, 2, about)

    def _write_files(
        self,
        export: Export,
        plan: Plan,
        folder: Path,
        written: dict[str, bytes],
        networks: Mapping[str, str],
        inputs: list[str],
    ) -> None:
        packed = io.BytesIO()
        np.savez(packed, **plan.arrays)  # type: ignore[arg-type]
        written["arrays.npz"] = packed.getvalue()
        document = {
            **plan.document,
            "networks": networks,
            "inputs": inputs,
            "engines": {
                name: self.settings("fp32" if name == DECODER else export.precision) for name in networks
            },
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in written.items()},
        }
        with writing(folder):
            for name, data in written.items():
                (folder / name).write_bytes(data)
        write_file(folder / "sampling.json", json.dumps(document, ensure_ascii=False).encode())
        write_file(folder / SCRIPT, self.script(plan).encode())

    def script(self, plan: Plan) -> str:
        """The sampler in NumPy, with what this model and this engine need."""

        text = files("alphabar.export").joinpath("generate.py.txt").read_text("utf-8")
        option = "set_defaults(labels=[])"
        if fields := list(plan.document["fields"]):
            own = '"--attribute", type=str, metavar="KEY=VALUE"'
            if fields == ["class"]:
                own = '"--class", type="class={}".format, metavar="NAME"'
            option = f'add_argument({own}, dest="labels", action="append", default=[],\n' + HELP
        values = {
            "REQUIREMENTS@": self.requirements,
            "ENGINE@\n": self.engine,
            "PICTURES@": DECODED if plan.document["latents"] else "x",
            "ALPHA@\n": ALPHA if plan.document["channels"] == 4 else "",
            "COARSE@\n": COARSE if "rows" in plan.arrays else "",
            "SEED@": str(plan.document["seed"]),
            "LABELS@": option,
        }
        for name, value in values.items():
            text = text.replace(f"@{name}", value)
        return text

    def load(self, export: Export, folder: Path) -> MakeItems:
        """What the written script generates."""
        with interpreting(folder):
            module = _module(folder / SCRIPT)
            loaded = module.load(folder)

        def make(first: int, count: int) -> Tensor:
            with interpreting(folder):
                made = module.generate(*loaded, range(first, first + count), export.settings.seed)
            return torch.from_numpy(np.ascontiguousarray(made))

        return make


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("alphabar_generate", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


def _check_noise(shape: Any) -> None:
    """Raises UsageError for signals whose noise the script does not make as PyTorch does."""
    if int(np.prod(shape)) % 16:
        raise UsageError("export.noise_size", shape=tuple(shape))
