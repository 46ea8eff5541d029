"""A degradation of pictures, as it looks from the latents that a model generates."""

from torch import Tensor

from alphabar.codecs.latent import LatentCodec
from alphabar.restoration.operators.base import Operator


class Decoded(Operator):
    """A∘decode: latents z (n, *codec.shape) → what the operator leaves of their pictures.

    It is not linear, whatever the operator is. Its inverse goes through the encoder, so it is as exact as the
    autoencoder is.
    """

    def __init__(self, codec: LatentCodec, operator: Operator):
        self.codec, self.operator = codec, operator
        self.shape, self.measurement_shape = codec.shape, operator.measurement_shape
        self.has_prox = operator.has_prox

    def A(self, x: Tensor) -> Tensor:
        return self.operator.A(self.codec.picture_signals(x))

    def pinv(self, y: Tensor) -> Tensor:
        return self.codec.latents(self.operator.pinv(y))

    def prox(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        picture = self.codec.picture_signals(x)
        return self._moved(x, picture, self.operator.prox(picture, y, rho))

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        picture = self.codec.picture_signals(x)
        return self._moved(x, picture, self.operator.project(picture, y))

    def _moved(self, x: Tensor, picture: Tensor, wanted: Tensor) -> Tensor:
        """Latents moved as their picture is: what the autoencoder alone changes is no part of it."""
        return x + self.codec.latents(wanted) - self.codec.latents(picture)
