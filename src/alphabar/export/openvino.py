"""The target OpenVINO: the fastest engine on most CPUs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alphabar.export.base import Export
from alphabar.export.numpy_sampler import NumpySampler
from alphabar.export.quantization import quantized
from alphabar.inference.openvino import PRECISIONS, PlainInputs, to_openvino


class Openvino(NumpySampler):
    """network.xml and network.bin with the inputs of `PlainInputs` and the output "F", for any batch.

    In fp16 and bf16 the weights are stored in float16, and the engine computes in that type where the
    processor has it, otherwise in one that it has: fp16 in bf16, and both in float32.
    """

    precisions = ("fp32", "bf16", "fp16", "int8")
    modules = ("openvino",)
    requirements = "numpy, pillow, openvino"
    suffix = ".xml"
    engine = """\
    import openvino
    read = lambda file: openvino.compile_model(file, "CPU", plan["engines"][pathlib.Path(file).stem])
"""

    def settings(self, precision: str) -> dict[str, Any]:
        """The type that the engine computes in; for int8 what is not quantized."""
        return {"INFERENCE_PRECISION_HINT": PRECISIONS.get(precision, "f32")}

    def convert(
        self, export: Export, plain: PlainInputs, examples: Mapping[str, np.ndarray] | None, floats: list[str]
    ) -> Mapping[str, bytes]:
        """The network as `to_openvino` converts it."""
        import openvino

        model = to_openvino(plain.network, export.model.shape, plain.columns)
        if examples is not None:
            model = quantized(model, examples, floats)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.xml"
            try:
                openvino.save_model(model, file, compress_to_fp16=export.precision in ("fp16", "bf16"))
            except RuntimeError as problem:  # which it raises where the disk is full
                raise OSError(" ".join(str(problem).split())) from None
            return {".xml": file.read_bytes(), ".bin": file.with_suffix(".bin").read_bytes()}
