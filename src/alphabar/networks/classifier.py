"""A classifier that knows noisy pictures: what classifier guidance asks which way a class lies."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks.base import Network
from alphabar.networks.layers import Conditions, Sinusoid, group_norm
from alphabar.networks.unet import ResidualBlock, check_resolutions


class Classifier(Network):
    """p(c | x_t): the way down of ADM's U-Net (Dhariwal and Nichol 2021, 4), and the mean of what it ends in.

    It stands where a denoiser's network stands, but its answer F (n, outputs) is what it says of the fields
    of the condition: logits of a field of classes, the mean of a Gaussian of variance one for numbers.

    conditions: the fields that it tells; made without any, to see what it costs, it says one number.
    channels: of the picture. widths, blocks, attention, head_dim, dropout: as of `UNet`.
    """

    def __init__(
        self,
        conditions: Conditions = (),
        *,
        channels: int,
        widths: tuple[int, ...] = (32, 64, 128, 128),
        blocks: int = 1,
        attention: int = 1,
        head_dim: int = 64,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_resolutions(widths, attention)
        if blocks < 1 or not 0 <= dropout < 1:
            raise UsageError(f"blocks = {blocks}, dropout = {dropout}: choose at least 1 and a share below 1")
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
        """What it says of pictures x (n, channels, h, w), (n, outputs); cond has no say."""
        return self.output(self.features(x, c_noise))

    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """What its last layer decides by, (n, width at the lowest resolution)."""
        # As in UNet: sinusoids tell apart numbers of the order of a thousand.
        embedding = self.embed(self.sinusoid(1000 * c_noise).to(x.dtype))
        h = self.stem(x)
        for i, level in enumerate(self.levels):
            h = F.avg_pool2d(h, 2) if i else h
            for block in level:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return F.silu(self.norm(h)).mean((2, 3))

    def log_prob(self, x: Tensor, c_noise: Tensor, cond: Tensor) -> Tensor:
        """log p(cond | x) (n,), up to a constant for numbers, of what is known in cond (n, columns).

        What is NaN there is not asked for and adds nothing.
        """
        total = x.new_zeros(len(x), dtype=torch.float32)
        for said, part, (kind, _) in self._parts(self(x, c_noise), cond):
            known = ~part.isnan().any(1)
            if kind == "classes":
                values = said.log_softmax(1).gather(1, part.nan_to_num(0.0).long())[:, 0]
            else:
                values = -0.5 * (part.nan_to_num(0.0) - said).square().sum(1)
            total = total + torch.where(known, values, 0.0)
        return total

    def right(self, x: Tensor, c_noise: Tensor, cond: Tensor) -> list[Tensor]:
        """For each field of classes, in which pictures the likeliest is the one in cond, (n,)."""
        return [
            torch.where(part[:, 0].isnan(), torch.nan, (said.argmax(1) == part[:, 0]).float())
            for said, part, (kind, _) in self._parts(self(x, c_noise), cond)
            if kind == "classes"
        ]

    def _parts(self, said: Tensor, cond: Tensor) -> "zip[tuple[Tensor, Tensor, tuple[str, int]]]":
        """What is said of each field, its columns of cond, and its kind and size."""
        sizes = [size for _, size in self.fields]
        columns = [1 if kind == "classes" else size for kind, size in self.fields]
        return zip(said.float().split(sizes, 1), cond.float().split(columns, 1), self.fields, strict=True)
