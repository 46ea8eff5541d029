"""Feature networks by name, and the features that they extract from pictures."""

from alphabar.metrics.features.base import Extractor, Features, extract
from alphabar.metrics.features.dinov2 import Dinov2
from alphabar.metrics.features.inception import Inception
from alphabar.metrics.features.lite0 import Lite0, Lite0At96
from alphabar.registry import Registry

EXTRACTORS = Registry(
    "extractor", {"lite0": Lite0, "lite0_96": Lite0At96, "inception": Inception, "dinov2": Dinov2}
)

__all__ = ["EXTRACTORS", "Extractor", "Features", "extract"]
