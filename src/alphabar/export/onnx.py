"""The target ONNX: for ONNX Runtime and every other engine that reads the format."""

import io
import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alphabar.export.base import Export
from alphabar.export.numpy_sampler import NumpySampler
from alphabar.export.quantization import quantized
from alphabar.inference.openvino import TRACED, PlainInputs

OPSET = 17


class Onnx(NumpySampler):
    """network.onnx with the inputs of `PlainInputs` and the output "F", all float32, for any batch.

    In fp16 weights and features are, where the engine has no kernels for them it computes in float32.
    """

    precisions = ("fp32", "fp16", "int8")
    modules = ("onnx", "onnxruntime")
    requirements = "numpy, pillow, onnxruntime"
    suffix = ".onnx"
    engine = """\
    import onnxruntime
    read = lambda file: lambda given, s=onnxruntime.InferenceSession(file): s.run(None, given)
"""

    def convert(
        self, export: Export, plain: PlainInputs, examples: Mapping[str, np.ndarray] | None, floats: list[str]
    ) -> Mapping[str, bytes]:
        """The network as TorchScript's tracer sees it, which writes exactly its operations."""
        shapes = {
            "x": export.model.shape,
            "c_noise": (),
            "cond": (plain.columns,),
            "identity": (),
        }
        example = tuple(torch.rand(TRACED, *shapes[name]) for name in plain.names)
        traced: nn.Module = Half(plain) if export.precision == "fp16" else plain
        file = io.BytesIO()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about this exporter's age, and checks that are no part of it
            torch.onnx.export(
                traced,
                example,
                file,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=plain.names,
                output_names=["F"],
                dynamic_axes={name: {0: "n"} for name in (*plain.names, "F")},
            )
        if examples is None:
            return {self.suffix: file.getvalue()}
        import onnx

        model = quantized(onnx.load_from_string(_folded(file.getvalue())), examples, floats)
        return {self.suffix: model.SerializeToString()}


class Half(nn.Module):
    """A network that computes in float16, as a function of float32 tensors."""

    def __init__(self, plain: PlainInputs):
        super().__init__()
        self.plain = deepcopy(plain).half()

    def forward(self, x: Tensor, c_noise: Tensor, *rest: Tensor) -> Tensor:
        """F in float32; the noise level stays in float32 up to its embedding."""
        return self.plain(x.half(), c_noise, *rest).float()


def _folded(model: bytes) -> bytes:
    """The model with what is constant computed, so that quantization finds weights that are constants."""
    import tempfile
    from pathlib import Path

    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        return (Path(folder) / "folded.onnx").read_bytes()
