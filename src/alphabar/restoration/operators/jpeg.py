"""JPEG compression as an operator."""

from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Operator, Shape, image_size
from alphabar.restoration.operators.jpeg_codec import compress


class JPEG(Operator):
    """JPEG, y = decompressed(compressed(x)), of RGB or grey images; neither linear nor invertible.

    quality: from 1 to 100. Colours are stored at half the resolution (4:2:0). `pinv` is y itself: a
    decompressed image compresses, all but exactly, to itself (Kawar et al. 2022b).
    Raises UsageError for another quality and for images with transparency, which JPEG does not have.
    """

    def __init__(self, shape: Shape, *, quality: int = 10):
        image_size(shape)
        if shape[0] not in (1, 3):
            raise UsageError("restoration.jpeg_transparency")
        if not 1 <= quality <= 100:
            raise UsageError("restoration.jpeg_quality", quality=quality)
        self.shape = self.measurement_shape = shape
        self.quality = quality

    def A(self, x: Tensor) -> Tensor:
        return compress(x, self.quality)

    def pinv(self, y: Tensor) -> Tensor:
        return y
