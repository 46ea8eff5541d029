"""TODO-DOC from restoration.operators"""

from torch import Tensor

from alphabar.errors import UsageError
from alphabar.restoration.operators.base import Operator, Shape
from alphabar.restoration.operators.jpeg_codec import compress


class Jpeg(Operator):
    """JPEG at a quality of 1 to 100: y = decompressed(compressed(x)). Neither linear nor invertible.

    pinv is y itself: a decompressed picture compresses, all but exactly, to itself (Kawar et al. 2022b).
    """

    def __init__(self, shape: Shape, quality: int):
        if shape[0] != 3:
            raise UsageError("jpeg works on colour pictures: put grey after it")
        if not 1 <= quality <= 100:
            raise UsageError(f"jpeg:{quality}: the quality goes from 1 to 100")
        self.shape = self.measured = shape
        self.quality = quality

    def A(self, x: Tensor) -> Tensor:
        return compress(x, self.quality)

    def pinv(self, y: Tensor) -> Tensor:
        return y


def jpeg(shape: Shape, *, quality: int = 10) -> Jpeg:
    """JPEG compression, colours at half the resolution (4:2:0)."""
    return Jpeg(shape, quality)
