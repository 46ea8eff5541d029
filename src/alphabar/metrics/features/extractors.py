"""What a network sees in pictures: features, and the logits of its classes.

Distances are comparable only between features of one extractor, whose ``protocol`` says everything that
decides them: network, weights, resize, normalisation.
"""

import hashlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import interpolate

from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.features.dinov2 import SIDE, from_weights
from alphabar.metrics.features.lite0 import by_openvino, load_lite0
from alphabar.progress import Progress
from alphabar.registry import Registry


class Published(NamedTuple):
    """A file of weights that everyone uses, and the environment variable that names another place of it."""

    network: str
    url: str
    sha256: str
    variable: str


INCEPTION = Published(
    "Inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "ALPHABAR_INCEPTION_WEIGHTS",
)


DINOV2 = Published(
    "DINOv2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "ALPHABAR_DINOV2_WEIGHTS",
)


class Features(NamedTuple):
    """What an extractor saw, float32 on the CPU."""

    features: Tensor
    """(n, dim)"""
    logits: Tensor | None
    """(n, classes), or None where the network has no classes."""


class Extractor(Protocol):
    """A network that looks at pictures."""

    name: str
    dim: int
    protocol: str

    def __call__(self, pictures: Tensor) -> Features:
        """The features of one batch of uint8 pictures (n, h, w, 3)."""
        ...


class Lite0:
    """EfficientNet-Lite0: offline, light. Its distances are its own, never to be called FID.

    device: where the network runs.
    size: the input in pixels, a multiple of 32. At 224, for which it was trained, the name is "lite0";
        at any other the name carries the size, so that their numbers are never mixed.
    """

    dim = 1280

    def __init__(self, device: torch.device | str = "cpu", *, size: int = 224):
        if size < 32 or size % 32:
            raise UsageError(f"extractor.size = {size}: lite0 takes multiples of 32, for example 96 or 224")
        self.name = "lite0" if size == 224 else f"lite0_{size}"
        self.protocol = (
            f"EfficientNet-Lite0, ImageNet weights 57934424, 1280 pooled features; "
            f"pictures resized to {size}×{size} px in float32 (bicubic a = −0.5, antialiased, clamped to "
            "[0, 255], not rounded), (x − 127)/128"
        )
        self.device = torch.device(device)
        self.size = size
        network = load_lite0()
        faster = by_openvino(network, size) if self.device.type == "cpu" else None
        self.network = faster or network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        x = pictures.to(self.device).permute(0, 3, 1, 2).float()
        x = interpolate(x, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.network(((x - 127) / 128).contiguous(memory_format=torch.channels_last))
        return Features(features.cpu(), logits.cpu())


class Lite0At96(Lite0):
    """``Lite0`` at 96 pixels: five times faster, for watching a training."""

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__(device, size=96)


class Inception:
    """Inception v3 of 2015 as torch-fidelity ports it, with TensorFlow 1's resize: what FID and IS stand on.

    Needs the extra ``alphabar[fidelity]``.
    device: where the network runs.
    weights: a file with its weights; else the environment variable ALPHABAR_INCEPTION_WEIGHTS; else the
        standard file, fetched at first use. The name is "inception" only with the standard weights; any
        others show in it, since their distances are no FID.
    Raises AlphabarError where the extra or the file is missing, or the file holds no such weights.
    """

    dim = 2048

    def __init__(self, device: torch.device | str = "cpu", *, weights: str = ""):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise AlphabarError(
                f"inception needs torch-fidelity and torchvision ({error}): pip install 'alphabar[fidelity]'"
            ) from None
        data, sha256, place = _weights(INCEPTION, weights)
        self.name = "inception" if sha256 == INCEPTION.sha256 else f"inception_{sha256[:8]}"
        self.protocol = (
            f"Inception v3 (torch-fidelity's port), weights sha256 {sha256[:16]}, 2048 pooled features and "
            "unbiased logits; pictures resized to 299×299 px as TensorFlow 1 does (bilinear, not antialiased)"
        )
        self.device = torch.device(device)
        try:
            # torch-fidelity would unpickle whatever the file holds: it gets tensors only, written anew
            plain = io.BytesIO()
            torch.save(torch.load(io.BytesIO(data), weights_only=True), plain)
            plain.seek(0)
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=plain
            )
        except Exception as error:  # a damaged file fails in more ways than can be named
            reason = str(error).partition("\n")[0]
            raise AlphabarError(f"{place} holds no Inception weights: {reason}") from None
        # twice as fast on a CPU
        self.network = network.to(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.network(pictures.to(self.device).permute(0, 3, 1, 2).contiguous())
        return Features(features.cpu(), logits.cpu())


class Dinov2:
    """DINOv2 ViT-L/14, whose distances agree with people more than Inception's do (Stein et al. 2023).

    Pictures are resized and normalised as in their dgm-eval. Nothing but the weights is needed, 1.2 GB.
    device: where the network runs.
    weights: a file with its weights, of any size but the giant; else the environment variable
        ALPHABAR_DINOV2_WEIGHTS; else the standard file, fetched at first use. The name is "dinov2" only with
        the standard weights.
    Raises AlphabarError where the file is missing or holds no such weights.
    """

    def __init__(self, device: torch.device | str = "cpu", *, weights: str = ""):
        data, sha256, place = _weights(DINOV2, weights)
        self.name = "dinov2" if sha256 == DINOV2.sha256 else f"dinov2_{sha256[:8]}"
        self.device = torch.device(device)
        try:
            state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            self.network = from_weights(state).to(self.device)
        except Exception as error:  # a damaged file fails in more ways than can be named
            reason = str(error).partition("\n")[0]
            raise AlphabarError(f"{place} holds no DINOv2 weights: {reason}") from None
        self.dim = self.network.cls_token.shape[-1]
        self.protocol = (
            f"DINOv2 with patches of 14 px, weights sha256 {sha256[:16]}, {self.dim} numbers of the class "
            "token; pictures resized to 224×224 px by Pillow (bicubic), normalised as ImageNet's"
        )
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=self.device)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=self.device)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        side = (SIDE, SIDE)
        resized = [Image.fromarray(p).resize(side, Image.Resampling.BICUBIC) for p in pictures.numpy()]
        x = torch.from_numpy(np.stack([np.asarray(p) for p in resized])).to(self.device) / 255
        x = ((x - self.mean) / self.std).permute(0, 3, 1, 2)
        with torch.autocast(self.device.type, enabled=False):
            features = self.network(x)
        return Features(features.cpu(), None)


def _weights(of: Published, place: str) -> tuple[bytes, str, str]:
    """The bytes of a network's weights, their sha256 and where they lie: at ``place``, else where the
    environment says, else where torch-fidelity and torch.hub keep them, fetched to there if need be."""
    if place := place or os.environ.get(of.variable, ""):
        data = _read_weights(Path(place), of)
        return data, hashlib.sha256(data).hexdigest(), place
    path = Path(torch.hub.get_dir()) / "checkpoints" / of.url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(of.url, str(path), of.sha256, sys.stderr.isatty())
        except (OSError, RuntimeError) as error:
            raise AlphabarError(
                f"{of.url} cannot be fetched ({error}): fetch it elsewhere, and set "
                f"{of.variable} to the file; or use --features lite0, which needs no network"
            ) from None
    data = _read_weights(path, of)
    if (sha256 := hashlib.sha256(data).hexdigest()) != of.sha256:
        raise AlphabarError(f"{path} is damaged: delete it, and it is fetched anew")
    return data, sha256, str(path)


def _read_weights(path: Path, of: Published) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AlphabarError(f"the {of.network} weights cannot be read: {error}") from None


EXTRACTORS = Registry(
    "extractor", {"lite0": Lite0, "lite0_96": Lite0At96, "inception": Inception, "dinov2": Dinov2}
)


def extract(
    extractor: Extractor, pictures: Any, *, cache: Path | None = None, batch: int = 64
) -> Iterator[Progress[Features]]:
    """The features of all pictures, with progress after each batch; the last record holds them.

    pictures: uint8 (n, h, w, 3), a tensor, array or memmap, n ≥ 1.
    cache: a folder. The features are kept there under a hash of the pictures and the protocol, so that
        the same reference is looked at once. A damaged file is made anew.
    Raises AlphabarError for anything that is not pictures.
    """
    shape = tuple(pictures.shape)
    if len(shape) != 4 or shape[3] != 3 or "uint8" not in str(pictures.dtype):
        raise AlphabarError(f"pictures must be uint8 (n, h, w, 3), these are {pictures.dtype} {shape}")
    n = shape[0]
    if n == 0:
        raise AlphabarError("there are no pictures to extract features from")
    file = cache / f"{extractor.name}-{_fingerprint(extractor, pictures)}.safetensors" if cache else None
    features = _read(file) if file and file.exists() else None
    if features is None:
        parts = []
        for start in range(0, n, batch):
            if start:
                yield Progress("extracting features", start, n)
            parts.append(extractor(_tensor(pictures[start : start + batch])))
        logits = [part.logits for part in parts if part.logits is not None]
        features = Features(
            torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None
        )
        if file:
            _write(file, features)
    yield Progress("extracting features", n, n, features)


def _tensor(pictures: Any) -> Tensor:
    return pictures if isinstance(pictures, Tensor) else torch.tensor(np.asarray(pictures))


def _fingerprint(extractor: Extractor, pictures: Any) -> str:
    digest = hashlib.sha256(f"{extractor.protocol}/{tuple(pictures.shape)}".encode())
    for start in range(0, len(pictures), 1024):
        digest.update(np.asarray(pictures[start : start + 1024]).tobytes())
    return digest.hexdigest()[:32]


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path) -> Features | None:
    """The features in a cache file, or None where it is damaged."""
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            intact = (stored.metadata() or {}).get("sha256") == _checksum(tensors)
    except (OSError, SafetensorError):
        return None
    return Features(tensors["features"], tensors.get("logits")) if intact else None


def _write(file: Path, features: Features) -> None:
    """Writes a cache file, whole or not at all. A cache that cannot be written costs time, nothing else."""
    tensors = {name: value for name, value in features._asdict().items() if value is not None}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as partial:
            try:
                partial.write(save(tensors, metadata={"sha256": _checksum(tensors)}))
                partial.flush()
                os.fsync(partial.fileno())
                os.replace(partial.name, file)
            except BaseException:
                os.unlink(partial.name)
                raise
    except OSError as error:
        warnings.warn(f"features are not cached: {error}", stacklevel=3)
