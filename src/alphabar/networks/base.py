"""What every architecture promises, what it costs, and checks of settings that several have."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from alphabar.errors import UsageError
from alphabar.networks.layers import Attention, ConditionEmbedding

MOST_BLOCKS = 64  # residual blocks at one resolution, each way
MOST_RESOLUTIONS = 12  # each halves the sides, which have at most 4,096 pixels

Extent = Annotated[int, Field(le=65_536)]
"""A width or a side in a network's settings. PyTorch cannot even count the weights of far larger ones."""

HeadDim = Annotated[int, Field(ge=1, le=65_536)]
"""Channels of an attention head."""


class WrongSize(UsageError):
    """A size that a network cannot take. reduction: what sizes must be multiples of."""

    reduction: int


class Network(nn.Module):
    """A function of a noisy signal and its noise level: ``network(x, c_noise, cond=None) -> F``.

    channels: of the signal.
    reduction: the factor between the signal's size and its smallest features'; sizes must be multiples of it.

    enlarged: the name of the network for pictures whose sides are ``times`` as long, a setting beside those
        of this one, which begins as this one on the coarse picture; None where there is none.

    Every architecture takes ``conditions`` when it is made: the fields of its condition, none by default.
    """

    enlarged: ClassVar[str | None] = None

    channels: int
    reduction: int

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """F of shape (n, channels, h, w), for x of that shape, c_noise (n,) and one condition for each
        signal.

        cond (n, columns): NaN where unknown; None is unknown throughout.
        """
        raise NotImplementedError

    def middle_attention(self) -> Attention | None:
        """The self-attention at the lowest resolution that guidance may control, where there is one."""
        return None

    def embed_condition(self, embed: ConditionEmbedding | None, cond: Tensor | None, n: int) -> Tensor | None:
        """The embedding (n, dim) of the condition of n signals; None where the network takes none.

        Raises UsageError for a condition of another size, and for any where the network takes none.
        """
        if embed is not None:
            return embed(embed.unconditional(n) if cond is None else cond)
        if cond is not None:
            raise UsageError("networks.takes_no_condition", network=type(self).__name__)
        return None

    @torch.no_grad()
    def load_compatible(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the random weights by those of a trained network of the same class, to train it further.

        Of an embedding of other conditions only what fits is taken over; the rest stays random.
        Raises UsageError where any other weight does not fit.
        """
        for name, own in self.state_dict().items():
            if name in weights and self.load_weight(name, own, weights[name]):
                continue
            if not name.startswith("embed_cond."):
                theirs = list(weights[name].shape) if name in weights else "none"
                raise UsageError("networks.weights_do_not_fit", name=name, own=list(own.shape), theirs=theirs)

    def load_weight(self, name: str, own: Tensor, trained: Tensor) -> bool:
        """Overwrite this network's weight with a trained one. Returns whether it fits."""
        if own.shape != trained.shape:
            return False
        own.copy_(trained)
        return True

    def check_size(self, spatial: Sequence[int], pixels: int = 1) -> None:
        """Raises WrongSize, naming sizes that fit, for spatial dimensions that do not.

        spatial: the sizes of a sample's spatial dimensions, for images (height, width).
        pixels: the side that one position of the signal has in the sample, more than 1 where it is latents.
        """
        reduction = pixels * self.reduction
        for size in spatial:
            if size < reduction or size % reduction:
                below = size // reduction * reduction
                fitting = [s for s in (below, below + reduction) if s > 0]
                error = WrongSize(
                    "networks.size",
                    size=size,
                    network=type(self).__name__,
                    reduction=reduction,
                    fitting=" / ".join(map(str, fitting)),
                )
                error.reduction = reduction
                raise error


class _WithoutValues(TorchFunctionMode):
    """While open, weights are not initialized.

    PyTorch computes a normal distribution, and its product with a number, on the meta device in Python, and
    loads its compiler for that, which takes as long as loading PyTorch.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in (torch.randn, torch.rand):
            func = torch.empty
        if func in (Tensor.mul, Tensor.__mul__, Tensor.__rmul__) and not isinstance(args[1], Tensor):
            return args[0]
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """While open, networks are built on the meta device: with shapes, and no weights."""
    with torch.device("meta"), _WithoutValues():
        yield


def flops(network: Network, spatial: Sequence[int]) -> int:
    """Floating-point operations of one forward pass for one signal of those spatial dimensions.

    Counts convolutions and matrix products, a multiply-add as two; computes nothing (meta tensors).
    Raises UsageError for a size that the network cannot take.
    """
    network.check_size(spatial)
    shapes = deepcopy(network).eval().to("meta")
    x = torch.empty(1, network.channels, *spatial, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(x, torch.empty(1, device="meta"))
    return counter.get_total_flops()


def check_positive(**settings: int) -> None:
    """Raises UsageError for the first setting that is below 1."""
    for setting, value in settings.items():
        if value < 1:
            raise UsageError("networks.not_positive", setting=setting, value=value)


def check_blocks(blocks: int) -> None:
    """Raises UsageError for a number of blocks that no network has; it would be built for hours."""
    check_positive(blocks=blocks)
    if blocks > MOST_BLOCKS:
        raise UsageError("networks.too_many_blocks", blocks=blocks, most=MOST_BLOCKS)


def check_dropout(dropout: float) -> None:
    """Raises UsageError for what is no probability below 1."""
    if not 0 <= dropout < 1:
        raise UsageError("networks.dropout", dropout=dropout)
