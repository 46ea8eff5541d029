"""Codecs by name, and the codec of a recipe's data settings."""

from typing import Any

from alphabar.codecs.base import Codec
from alphabar.codecs.image import ImageCodec
from alphabar.codecs.latent import LatentCodec
from alphabar.registry import Registry

CODECS = Registry("codec", {"image": ImageCodec, "latent": LatentCodec})


def build_codec(data: Any) -> Codec:
    """The codec that a recipe's data settings describe: ``data.codec``, with their size and channels."""
    return CODECS.build(data.codec, size=data.size, channels=data.channels or 3)
