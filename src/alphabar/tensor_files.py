"""Tensors and optimizer states as the bytes of safetensors files: nothing is pickled."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from alphabar.files import Damaged, interpreting

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


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


def tensors_in(files: Mapping[str, bytes], name: str, path: Path) -> dict[str, Tensor]:
    """The tensors in one of the files of the folder ``path``. Raises Damaged naming that file."""
    if name not in files:
        raise Damaged("files.incomplete", path=path, missing=name)
    with interpreting(path / name):
        return unpack_tensors(files[name])


def difference(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """The first name whose tensors cannot stand for each other, and what both are; None where all can.

    They have the same shape, and are both of real numbers in `FLOATS` or of the same type.
    """
    for name in sorted({*own, *theirs}):
        shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (own, theirs)]
        if shapes[0] != shapes[1]:
            return name, str(shapes[0]), str(shapes[1])
        types = own[name].dtype, theirs[name].dtype
        if types[0] != types[1] and not FLOATS.issuperset(types):
            return name, str(types[0]), str(types[1])
    return None


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
