"""A network of alphabar as a model of diffusers. Exports hold a self-contained copy of this file."""

from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from alphabar.networks import NETWORKS


class AlphabarNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """F = network(c_in·x, c_noise, cond), see `AlphabarPipeline`.

    architecture: its name and settings. channels: of a signal. conditions: the kind and size of each field
    of a condition.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, architecture, channels, conditions=()):  # type: ignore[no-untyped-def]
        super().__init__()
        fields = [(kind, size) for kind, size in conditions]
        self.network = NETWORKS.build(architecture, channels=channels, conditions=fields)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F like x (n, channels, h, w), for c_noise (n,) and cond (n, columns) or None."""
        return self.network(x.to(self.dtype), c_noise, cond)

    def middle_attention(self) -> Any:
        """The self-attention that guidance may control, or None."""
        return self.network.middle_attention()
