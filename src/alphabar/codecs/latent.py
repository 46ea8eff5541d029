"""The latent codec: pictures ↔ the standardised latents of an autoencoder of one's own."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from alphabar.codecs.base import Codec, LearnedCodec
from alphabar.codecs.image import ImageCodec, enlarge_thumbnails, thumbnail_shape
from alphabar.errors import UsageError
from alphabar.networks.autoencoder import Autoencoder
from alphabar.networks.base import Extent, without_memory
from alphabar.tensor_files import difference

AT_ONCE = 16  # pictures that the networks take at a time
LEAST_STD = 1e-6  # of a channel of latents; one that does not vary has no scale


class LatentCodec(LearnedCodec):
    """Pictures whose signals are latents (Rombach et al. 2022): each channel has mean 0 and variance 1.

    size, channels: of the pictures, as of `ImageCodec`. The other settings are those of `Autoencoder`.
    Shapes are known at once; `encode` and `decode` need the autoencoder's weights, which `load` takes.
    reduction: how many pixels a side each position of the latents has.
    Raises WrongSize for a size that is no multiple of it.
    """

    name = "latent"
    bounds = None
    fits = ImageCodec.fits
    suffix = ImageCodec.suffix
    tolerance = 255.0

    def __init__(
        self,
        size: int | tuple[int, int],
        channels: int = 3,
        *,
        latent: Extent = 4,
        widths: tuple[Extent, ...] = (32, 96),
        blocks: int = 1,
        patch: Extent = 2,
    ):
        self.reader = self.pictures = ImageCodec(size, channels)
        self.settings: dict[str, Any] = {"latent": latent, "widths": widths, "blocks": blocks, "patch": patch}
        with without_memory():
            network = self.network()
        network.check_size(self.pictures.spatial)
        self.reduction = network.reduction
        self.shape = (latent, *(side // self.reduction for side in self.pictures.spatial))
        self.item_shape, self.item_dtype = self.pictures.item_shape, self.pictures.item_dtype
        self._autoencoder: Autoencoder | None = None
        self._mean = self._std = torch.empty(0)

    def load(self, weights: Mapping[str, Tensor], device: str | torch.device = "cpu") -> None:
        """Takes over what `weights` gave. Raises UsageError for weights of another autoencoder."""
        network = self.network()
        own = {**network.state_dict(), "mean": torch.empty(self.shape[0]), "std": torch.empty(self.shape[0])}
        if found := difference(own, weights):
            raise UsageError("codecs.other_autoencoder", name=found[0], own=found[1], theirs=found[2])
        network.load_state_dict({name: w for name, w in weights.items() if name not in ("mean", "std")})
        self._autoencoder = network.eval().requires_grad_(False).to(device)
        self._mean, self._std = (weights[name].float().to(device)[:, None, None] for name in ("mean", "std"))

    def weights(self) -> dict[str, Tensor]:
        """The autoencoder's weights, and mean and standard deviation of each channel of the latents."""
        scale = {"mean": self._mean.flatten(), "std": self._std.flatten()}
        return {**self._trained().state_dict(), **scale}

    def encode(self, items: Tensor) -> Tensor:
        """Pictures (n, h, w, c) uint8 → latents (n, *shape) float32. Raises UsageError without weights."""
        with torch.no_grad():
            parts = [self.latents(self.pictures.encode(part)) for part in items.split(AT_ONCE)]
        return torch.cat(parts).to(items.device) if parts else torch.empty(0, *self.shape)

    def decode(self, signals: Tensor) -> Tensor:
        """Latents (n, *shape) → the nearest pictures (n, h, w, c) uint8; UsageError without weights."""
        with torch.no_grad():
            parts = [self.pictures.decode(self.picture_signals(part)) for part in signals.split(AT_ONCE)]
        whole = torch.cat(parts) if parts else torch.empty(0, *self.item_shape, dtype=torch.uint8)
        return whole.to(signals.device)

    def latents(self, pictures: Tensor) -> Tensor:
        """The signals of pictures (n, c, h, w) → latents (n, *shape), with gradients."""
        z = self._trained().encode(pictures.to(self._mean.device, torch.float32))
        return (z - self._mean) / self._std

    def picture_signals(self, latents: Tensor) -> Tensor:
        """Latents (n, *shape) → the signals of their pictures (n, c, h, w), with gradients."""
        z = latents.to(self._mean.device, torch.float32) * self._std + self._mean
        return self._trained().decode(z)

    def coarsen(self, signals: Tensor) -> Tensor:
        """Latents of at most as many positions as a thumbnail."""
        return torch.nn.functional.adaptive_avg_pool2d(signals, thumbnail_shape(self.shape)[1:]).flatten(1)

    def refine(self, coarse: Tensor) -> Tensor:
        """Small latents enlarged bicubically."""
        return enlarge_thumbnails(coarse, self.shape)

    def network(self) -> Autoencoder:
        """The autoencoder of these settings, with random weights."""
        return Autoencoder(channels=self.pictures.channels, **self.settings)

    def _trained(self) -> Autoencoder:
        if self._autoencoder is None:
            raise UsageError("codecs.no_weights", codec=self.name)
        return self._autoencoder


def measured_codec(codec: LatentCodec, network: Autoencoder, pictures: Iterable[Tensor]) -> LatentCodec:
    """The codec with a trained autoencoder, standardised over pictures: batches of signals (n, c, h, w).

    Raises UsageError where a channel of the latents does not vary.
    """
    n, total, square = 0, torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for batch in pictures:
            z = network.encode(batch).double()
            n += z[:, 0].numel()
            total, square = total + z.sum((0, 2, 3)), square + z.square().sum((0, 2, 3))
    mean = total / n
    std = (square / n - mean.square()).clamp(min=0).sqrt()
    if not (std > LEAST_STD).all():
        raise UsageError("codecs.flat_latents", channel=int(std.argmin()))
    codec.load({**network.state_dict(), "mean": mean.float(), "std": std.float()})
    return codec


def codec_parameters(codec: Codec) -> int:
    """How many parameters the networks of a codec have: none, unless it is latents."""
    if not isinstance(codec, LatentCodec):
        return 0
    with without_memory():
        return sum(p.numel() for p in codec.network().parameters())


def decoding_flops(codec: Codec) -> int:
    """Floating-point operations that decoding one signal takes in a network: none, unless it is latents."""
    if not isinstance(codec, LatentCodec):
        return 0
    with without_memory():
        network = codec.network()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.decode(torch.empty(1, *codec.shape, device="meta"))
    return counter.get_total_flops()
