"""The small U-Net that most people meet first, as the tutorials of 2022 have it.

Every constant is theirs, including what later work does differently: BatchNorm after the ReLU, no attention,
no residual connections, a 32-dimensional embedding of the step.
"""

from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.base import MOST_RESOLUTIONS, Extent, Network
from alphabar.networks.layers import BatchNorm2d, Conditions, Sinusoid


class Block(nn.Module):
    """Two 3x3 convolutions, the embedding added between them, and a 4x4 one that halves or doubles the size.

    Going up, the input is a feature map and its skip connection: twice ``in_width`` channels.
    """

    def __init__(self, in_width: int, out_width: int, time_dim: int, up: bool):
        super().__init__()
        self.time_mlp = nn.Linear(time_dim, out_width)
        self.conv1 = nn.Conv2d(2 * in_width if up else in_width, out_width, 3, padding=1)
        self.bnorm1 = BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.bnorm2 = BatchNorm2d(out_width)
        resample = nn.ConvTranspose2d if up else nn.Conv2d
        self.transform = resample(out_width, out_width, 4, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (n, width, h, w) and an embedding (n, time_dim) → features of half or double the size."""
        h = self.bnorm1(F.relu(self.conv1(x)))
        h = h + F.relu(self.time_mlp(embedding))[:, :, None, None]
        h = self.bnorm2(F.relu(self.conv2(h)))
        return self.transform(h)


class TutorialUNet(Network):
    """The tutorials' network: 15.5 M parameters, 8.6 GFLOP for an image of 64x64.

    conditions: must be empty: it takes none.
    channels: of the image.
    widths: channels at each resolution; each one after the first halves the sides.
    time_dim: size of the sinusoidal embedding.
    steps: how many the schedule has: what is embedded is the index of the step, t * steps - 1.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[Extent, ...] = (64, 128, 256, 512),
        time_dim: Extent = 32,
        steps: Annotated[int, Field(ge=1, le=1_000_000)] = 300,
    ):
        super().__init__()
        if conditions:
            raise UsageError("networks.tutorial_takes_no_condition")
        if len(widths) < 2 or min(widths) < 1:
            raise UsageError("networks.widths", widths=list(widths), least=2)
        if len(widths) > MOST_RESOLUTIONS:
            raise UsageError("networks.too_many_widths", n=len(widths), most=MOST_RESOLUTIONS)
        if time_dim < 4 or time_dim % 2:
            raise UsageError("networks.time_dim", time_dim=time_dim)
        self.channels = channels
        self.reduction = 2 ** (len(widths) - 1)
        self.steps = steps
        pairs = list(pairwise(widths))
        self.sinusoid = Sinusoid(time_dim)
        self.time_mlp = nn.Sequential(nn.Linear(time_dim, time_dim), nn.ReLU())
        self.conv0 = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.downs = nn.ModuleList(Block(a, b, time_dim, up=False) for a, b in pairs)
        self.ups = nn.ModuleList(Block(b, a, time_dim, up=True) for a, b in reversed(pairs))
        self.output = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F of shape (n, channels, h, w) for x of that shape and c_noise = t (n,) in (0, 1].

        Raises UsageError where a condition is given: this network takes none.
        """
        if cond is not None:
            raise UsageError("networks.tutorial_takes_no_condition")
        embedding = self.time_mlp(self.sinusoid(c_noise * self.steps - 1).to(x.dtype))
        h = self.conv0(x)
        skips = []
        for down in self.downs:
            h = down(h, embedding)
            skips.append(h)
        for up in self.ups:
            # As in the original, the deepest feature map is its own skip connection.
            h = up(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.output(h)
