"""Tensors and optimizer states as the bytes of safetensors files: nothing is pickled."""

from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from torch import Tensor


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as the bytes of a safetensors file. Raises MemoryError where there is too little."""
    packed = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # Where memory runs out, safetensors panics or ends the process. So room for its three copies is reserved
    # before, which fails with MemoryError, and given back untouched.
    np.empty(3 * sum(value.nbytes for value in packed.values()), np.uint8)
    try:
        return safetensors.torch.save(packed)
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of Rust, and no Exception
            raise MemoryError from error
        raise


def unpack_tensors(data: bytes) -> dict[str, Tensor]:
    """The inverse of ``pack_tensors``."""
    return safetensors.torch.load(data)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> bytes:
    """The per-parameter state of an optimizer, by parameter number. Settings come from the recipe."""
    state = optimizer.state_dict()["state"]
    return pack_tensors({f"{i}.{key}": torch.as_tensor(v) for i, s in state.items() for key, v in s.items()})


def unpack_optimizer(data: bytes, optimizer: torch.optim.Optimizer) -> None:
    """Puts back what ``pack_optimizer`` took.

    Files hold contiguous tensors, while moments lie in memory as their parameters do: a fused optimizer walks
    through both in the order of their memory. Raises ValueError for a moment of another shape.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in unpack_tensors(data).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{key}: {tuple(value.shape)}, {tuple(parameter.shape)}")
            if value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(
                    value
                )
