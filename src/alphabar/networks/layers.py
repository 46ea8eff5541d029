"""Layers that several architectures are built from."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from alphabar.errors import UsageError


class Sinusoid(nn.Module):
    """Sinusoidal embedding of a number (Vaswani et al. 2017, 3.5; in DDPM's order, sines then cosines).

    Frequencies run geometrically from 1 to 1/10000. (n,) → (n, dim), dim even and at least
    4, computed in float32 or better.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """(n,) → (n, dim)."""
        half = self.dim // 2
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        exponent = torch.arange(half, device=t.device, dtype=t.dtype) / (half - 1)
        angle = t[:, None] * torch.exp(-math.log(10000) * exponent)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes. Each process's result depends on every input, so gradients are summed too."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose batch is the global one.

    In training under several processes it normalises by the statistics of the whole batch of all of them,
    so that two processes with half the batch each compute what one would with the whole.
    (``nn.SyncBatchNorm`` does this on GPUs only.) Parameters and buffers are those of ``nn.BatchNorm2d``.

    over_processes: set it to False for steps that one process takes alone; it would wait for the others.
    """

    over_processes = True

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, c, h, w) → the same shape."""
        together = self.over_processes and dist.is_available() and dist.is_initialized()
        if self.training and together and dist.get_world_size() > 1:
            # Collectives inside an autograd function cannot be compiled. A decorator would say so too, but
            # load the compiler, 1.5 s, with every command.
            return torch.compiler.disable(self._global_forward)(x)
        return super().forward(x)

    def _global_forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
        # Processes may hold batches of different sizes: sum moments and counts, never average averages.
        count = y.new_full((1,), y.numel() / y.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([mean * count, (variance + mean**2) * count, count]))
        mean, square, _ = (sums / sums[-1]).split([y.shape[1], y.shape[1], 1])
        variance = square - mean**2
        self._update_running(mean.detach(), variance.detach(), sums[-1].detach())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        y = (y - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


class Attention(nn.Module):
    """Attention between positions, softmax(q kᵀ/√d) v, into which guidance can look and reach."""

    def __init__(self) -> None:
        super().__init__()
        self._identity_rows: Tensor | None = None
        self._maps: list[Tensor] | None = None

    def attend(self, qkv: Tensor, shape: tuple[int, int]) -> Tensor:
        """qkv (n, 3, heads, d, positions) -> (n, heads·d, h, w); the positions are those of shape (h, w)."""
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        if self._identity_rows is not None:
            y = torch.where(self._identity_rows[:, None, None, None], v, y)
        if self._maps is not None:
            shares = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
            self._maps.append(shares.mean(1).sum(1).reshape(-1, *shape))
        return y.transpose(-1, -2).reshape(y.shape[0], -1, *shape)

    @property
    def identity_rows(self) -> Tensor | None:
        """The rows (n,) bool whose attention matrix is the identity now; None for none."""
        return self._identity_rows

    @property
    def recording(self) -> bool:
        """Whether passes record now where they attend."""
        return self._maps is not None

    @contextmanager
    def identity_attention(self, rows: Tensor) -> Iterator[None]:
        """While open, the attention matrix is the identity in the rows of a batch that rows (n,) bool marks.

        Each position attends to itself alone there (PAG, Ahn et al. 2024).
        """
        self._identity_rows = rows
        try:
            yield
        finally:
            self._identity_rows = None

    @contextmanager
    def record_attention(self) -> Iterator[list[Tensor]]:
        """While open, every pass adds to the list how much attention each position receives, (n, h, w).

        Summed over the positions that attend, mean over heads: 1 on average (SAG, Hong et al. 2023).
        """
        self._maps = []
        try:
            yield self._maps
        finally:
            self._maps = None


class SelfAttention(Attention):
    """Residual self-attention over the positions of a feature map (Ho et al. 2020, B; heads as in ADM).

    The output projection starts at zero, so the layer starts as the identity.
    """

    def __init__(self, width: int, head_dim: int):
        super().__init__()
        if width % head_dim:
            raise UsageError("networks.head_dim", head_dim=head_dim, width=width)
        self.heads = width // head_dim
        self.norm = group_norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width, h, w) → the same shape."""
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w)
        return x + self.out(self.attend(qkv, (h, w)))


Conditions = Sequence[tuple[str, int]]
"""The fields of a condition: ("classes", how many) takes one column, ("numbers", how many) that many.

("transformation", how many) takes numbers too, the last columns, which only training knows.
"""


class ConditionEmbedding(nn.Module):
    """The sum of one embedding for each field. A field that is NaN is unknown and has a learned embedding.

    Class numbers go through a table, numbers through a two-layer perceptron. (n, columns) → (n, dim).
    A transformation's columns may be left out; it is unknown then.

    std: the standard deviation of the random embeddings of classes and of unknown fields.
    """

    def __init__(self, fields: Conditions, dim: int, std: float = 1.0):
        super().__init__()
        self.fields = tuple(fields)
        self.columns = [1 if kind == "classes" else size for kind, size in self.fields]
        self.of_training = sum(size for kind, size in self.fields if kind == "transformation")
        self.embed = nn.ModuleList(
            nn.Embedding(size, dim)
            if kind == "classes"
            else nn.Sequential(nn.Linear(size, dim), nn.SiLU(), nn.Linear(dim, dim))
            for kind, size in self.fields
        )
        self.unknown = nn.Parameter(std * torch.randn(len(self.fields), dim))
        for embed in self.embed:
            if isinstance(embed, nn.Embedding):
                nn.init.normal_(embed.weight, std=std)

    def forward(self, cond: Tensor) -> Tensor:
        """Raises UsageError for a condition of another number of columns."""
        if cond.ndim == 2 and cond.shape[1] == sum(self.columns) - self.of_training:
            cond = F.pad(cond, (0, self.of_training), value=math.nan)
        if cond.ndim != 2 or cond.shape[1] != sum(self.columns):
            raise UsageError("networks.condition_shape", shape=tuple(cond.shape), columns=sum(self.columns))
        total = torch.zeros((), dtype=self.unknown.dtype, device=cond.device)
        for (kind, _), part, embed, unknown in zip(
            self.fields, cond.split(self.columns, dim=1), self.embed, self.unknown, strict=True
        ):
            missing = part.isnan().any(1, keepdim=True)
            known = torch.where(part.isnan(), 0.0, part)
            known = known[:, 0].long() if kind == "classes" else known.to(unknown.dtype)
            total = total + torch.where(missing, unknown, embed(known))
        return total

    def unconditional(self, n: int) -> Tensor:
        """The condition of n unconditional signals, (n, columns): every field is unknown."""
        return self.unknown.new_full((n, sum(self.columns)), math.nan)


def group_norm(width: int) -> nn.GroupNorm:
    """Group normalisation in at most 32 groups of at least four channels each, where the width allows."""
    most = min(32, max(1, width // 4))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if width % g == 0), width)


def zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with its weights and bias set to zero: a branch that ends in it starts switched off."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
