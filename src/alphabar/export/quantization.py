"""Post-training quantization to int8: its calibration inputs, and the layers that stay in float."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alphabar.export.base import Export
from alphabar.inference.openvino import PlainInputs
from alphabar.networks.base import Network
from alphabar.networks.mp_unet import MPConv
from alphabar.progress import last
from alphabar.sampling.sample import sample

SAMPLES = 8  # whose way from noise to the end gives the calibration inputs
ROWS = 16  # of them that tell how much each layer hurts
TOLERATED = 0.02  # relative error of the network's output that the quantized layers may have together


def calibration_inputs(export: Export, network: nn.Module, names: list[str]) -> dict[str, np.ndarray]:
    """The inputs of a network in the export's own sampling, at every noise level that it visits.

    names: of the inputs. Rows of one noise level follow each other.
    """
    attention = network.middle_attention() if isinstance(network, Network) else None
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def record(module: nn.Module, given: tuple[Any, ...]) -> None:
        x, c_noise, cond = (*given, None)[:3]
        n = len(x)
        marked = None if attention is None else attention.identity_rows
        values = {"x": x, "c_noise": c_noise, "cond": cond, "identity": marked}
        if cond is None:
            columns = sum(export.model.vocabulary.widths) if export.model.vocabulary else 0
            values["cond"] = torch.full((n, columns), torch.nan)
        if marked is None:
            values["identity"] = torch.zeros(n)
        for name in names:
            seen[name].append(values[name].detach().cpu().float())

    handle = network.register_forward_pre_hook(record)
    try:
        last(sample(export.model, SAMPLES, export.settings, batch=SAMPLES, precision="fp32"))
    finally:
        handle.remove()
    return {name: torch.cat(values).numpy() for name, values in seen.items()}


@torch.no_grad()
def choose_float_layers(
    plain: PlainInputs, examples: Mapping[str, np.ndarray]
) -> tuple[list[str], dict[str, float]]:
    """The layers to leave in float, and for every layer the relative error that it brings alone in int8.

    Weights are rounded to 8 bits for each output channel, inputs for the whole tensor. Errors of several
    layers add up like independent noise; those that hurt most stay in float until the others together bring
    at most `TOLERATED`.
    """
    n = len(examples["x"])
    rows = np.linspace(0, n - 1, min(ROWS, n)).round().astype(int)
    inputs = [torch.from_numpy(examples[name][rows]) for name in plain.names]
    exact = plain(*inputs)
    errors = {}
    for name, layer in plain.named_modules():
        if isinstance(layer, nn.Conv2d | MPConv) and layer.weight.ndim == 4:
            with _in_int8(layer):
                difference = plain(*inputs) - exact
            errors[name.removeprefix("network.")] = (difference.norm() / exact.norm()).item()
    total = sum(error**2 for error in errors.values())
    floats = []
    for name in sorted(errors, key=lambda name: -errors[name]):
        if total <= TOLERATED**2:
            break
        floats.append(name)
        total -= errors[name] ** 2
    return floats, errors


@contextmanager
def _in_int8(layer: Any) -> Iterator[None]:
    """While open, the layer's weights and inputs are rounded to 8 bits."""
    weight = layer.weight.data
    largest = weight.abs().flatten(1).amax(1).clamp(min=1e-12).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    layer.weight.data = (weight / largest).round() * largest

    def round_input(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = given
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 1e-12)
        step = (high - low) / 255
        return ((x / step).round() * step, *rest)

    handle = layer.register_forward_pre_hook(round_input)
    try:
        yield
    finally:
        handle.remove()
        layer.weight.data = weight


def quantized(model: Any, examples: Mapping[str, np.ndarray], floats: list[str]) -> Any:
    """A model of ONNX or OpenVINO whose convolutions are in int8 (NNCF, post-training quantization).

    Everything else stays in float: it costs little, and sums and products of features do not bear it.

    examples: inputs by name. floats: the names of layers that stay in float.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    n = len(examples["x"])
    batches = [
        {name: values[i : i + SAMPLES] for name, values in examples.items()} for i in range(0, n, SAMPLES)
    ]
    # "downs.0.shrink" is "downs.0/shrink" or "downs.0/downs.0.0" in the names of either format.
    between = r"(?:[./]\w+)?[./]"
    patterns = [f".*network{between}{between.join(name.split('.'))}/.*" for name in floats]
    if hasattr(model, "graph"):
        types = {node.op_type for node in model.graph.node} - {"Conv"}
    else:
        types = {node.get_type_name() for node in model.get_ops()} - {"Convolution"}
    with redirect_stdout(io.StringIO()):  # NNCF draws progress bars there, where results belong
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=patterns, types=sorted(types), validate=False),
        )
