"""A classifier of noisy images, for classifier guidance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.networks.base import Extent, HeadDim, Network, check_blocks, check_dropout
from alphabar.networks.layers import Conditions, Sinusoid, group_norm
from alphabar.networks.unet import ResidualBlock, check_resolutions


class Classifier(Network):
    """p(c | x_t): the way down of ADM's U-Net (Dhariwal and Nichol 2021, 4), and the mean of what it ends in.

    It is used like a denoiser's network, but its output F (n, outputs) predicts the fields of the condition:
    logits of a field of classes, the mean of a Gaussian of variance one for numbers.

    conditions: the fields that it predicts; made without any, to count its cost, it has one output.
    channels: of the image. widths, blocks, attention, head_dim, dropout: as of `UNet`.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[Extent, ...] = (32, 64, 128, 128),
        blocks: int = 1,
        attention: int = 1,
        head_dim: HeadDim = 64,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_resolutions(widths, attention)
        check_blocks(blocks)
        check_dropout(dropout)
        self.channels = channels
        self.reduction = 2 ** (len(widths) - 1)
        self.fields = tuple(conditions)
        embedding_dim = 4 * widths[0]
        self.sinusoid = Sinusoid(widths[0])
        self.embed = nn.Sequential(
            nn.Linear(widths[0], embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim), nn.SiLU()
        )
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        above = widths[0]
        for level, w in enumerate(widths):
            head = head_dim if level >= len(widths) - attention else None
            self.levels.append(
                nn.ModuleList(
                    ResidualBlock(w if i else above, w, embedding_dim, dropout, head) for i in range(blocks)
                )
            )
            above = w
        self.norm = group_norm(above)
        self.output = nn.Linear(above, sum(size for _, size in self.fields) or 1)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Predictions (n, outputs) for images x (n, channels, h, w); cond is ignored."""
        return self.output(self.features(x, c_noise))

    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The features before the last layer, (n, width at the lowest resolution)."""
        # As in UNet: sinusoids tell apart numbers of the order of a thousand.
        embedding = self.embed(self.sinusoid(1000 * c_noise).to(x.dtype))
        h = self.stem(x)
        for i, level in enumerate(self.levels):
            h = F.avg_pool2d(h, 2) if i else h
            for block in level:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return F.silu(self.norm(h)).mean((2, 3))

    def log_prob(self, x: Tensor, c_noise: Tensor, cond: Tensor) -> Tensor:
        """log p(cond | x) (n,), up to a constant for numbers, of the known fields of cond (n, columns).

        A field that is NaN is unknown and adds nothing.
        """
        total = x.new_zeros(len(x), dtype=torch.float32)
        for output, part, (kind, _) in self._parts(self(x, c_noise), cond):
            known = ~part.isnan().any(1)
            if kind == "classes":
                values = output.log_softmax(1).gather(1, part.nan_to_num(0.0).long())[:, 0]
            else:
                values = -0.5 * (part.nan_to_num(0.0) - output).square().sum(1)
            total = total + torch.where(known, values, 0.0)
        return total

    def correct(self, x: Tensor, c_noise: Tensor, cond: Tensor) -> list[Tensor]:
        """For each field of classes, whether the predicted one is in cond, (n,): 1, 0, or NaN if unknown."""
        return [
            torch.where(part[:, 0].isnan(), torch.nan, (output.argmax(1) == part[:, 0]).float())
            for output, part, (kind, _) in self._parts(self(x, c_noise), cond)
            if kind == "classes"
        ]

    def _parts(self, outputs: Tensor, cond: Tensor) -> "zip[tuple[Tensor, Tensor, tuple[str, int]]]":
        """The outputs for each field, its columns of cond, and its kind and size."""
        sizes = [size for _, size in self.fields]
        columns = [1 if kind == "classes" else size for kind, size in self.fields]
        return zip(outputs.float().split(sizes, 1), cond.float().split(columns, 1), self.fields, strict=True)
