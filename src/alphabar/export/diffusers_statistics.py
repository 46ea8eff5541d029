"""What the initial noise of a model depends on, as a model of diffusers. Exports hold a copy of this file."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class AlphabarStatistics(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The Gaussian that was fitted to the training data, of which the initial noise "gaussian" is made.

    shape: of a signal and of ``mean``. coarse: the numbers of its coarse content; ``factor`` is square.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, shape, coarse):  # type: ignore[no-untyped-def]
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(*shape), requires_grad=False)
        self.factor = nn.Parameter(torch.zeros(coarse, coarse), requires_grad=False)
