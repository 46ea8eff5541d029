"""The embedding of conditions beside a UNet2DModel of diffusers. Exports hold a copy of this file."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from alphabar.networks.layers import ConditionEmbedding


class AlphabarCondition(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What a UNet2DModel is given as its class labels: the embedding of a condition.

    conditions: the kind and size of each field. dim: of the embedding.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, conditions, dim):  # type: ignore[no-untyped-def]
        super().__init__()
        self.embed = ConditionEmbedding([(kind, size) for kind, size in conditions], dim)

    def forward(self, cond: Tensor | None, n: int) -> Tensor:
        """The embeddings (n, dim) of conditions (n, columns); None: unknown throughout."""
        return self.embed(self.embed.unconditional(n) if cond is None else cond)
