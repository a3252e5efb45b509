"""Which weights of a tensor an index takes: of units and of nodes that a user writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.errors import UserError
from modhook.values.arguments import shown


def places_at(owner: str, name: str, shape: tuple[int, ...], index: Any) -> Tensor:
    """Return the places of an index in a flat tensor of a shape: (n,).

    Raises:
        UserError: what is no index, leaves the tensor, takes nothing of it, or takes a weight twice; `owner` says whose it is.
    """
    where = f"{owner}: the index {_written(index)} of {name!r}"
    every = torch.arange(int(np.prod(shape)), device="cpu").view(shape)
    parts = index if isinstance(index, tuple) else (index,)
    try:
        keys = tuple(map(_key, parts))
    except (TypeError, ValueError, RuntimeError):
        raise _no_index(where) from None
    if any(isinstance(k, str | bytes | float | Mapping) or (isinstance(k, Tensor) and k.is_floating_point()) for k in keys):
        raise _no_index(where)
    key = keys if isinstance(index, tuple) else keys[0]
    _bounds(where, shape, key)
    try:
        found = every[key].reshape(-1)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where} leaves the tensor, whose shape is {shape}: {str(error).partition(chr(10))[0]}."
        ) from None
    if not len(found):
        raise UserError(f"{where} takes no weight of it; its shape is {shape}.")
    if len(np.unique(found.numpy())) < len(found):
        raise UserError(f"{where} takes a weight twice.")
    return found


def _no_index(where: str) -> UserError:
    return UserError(f"{where} is none; give a number, a slice, a list of numbers, a boolean mask, `...`, or a tuple of these.")


def _key(index: Any) -> Any:
    if isinstance(index, np.ndarray):
        index = torch.from_numpy(index)
    if isinstance(index, list | range):
        index = torch.tensor(list(index), device="cpu")
    return index.cpu() if isinstance(index, Tensor) else index


def _bounds(where: str, shape: Sequence[int], key: Any) -> None:
    """Slices that leave a tensor are cut by Python without a word; here they are mistakes."""
    keys = key if isinstance(key, tuple) else (key,)
    used = sum(
        k.dim() if isinstance(k, Tensor) and k.dtype == torch.bool else 1
        for k in keys
        if k is not Ellipsis and k is not None
    )
    dim = 0
    for k in keys:
        if k is Ellipsis:
            dim += len(shape) - used
            continue
        if k is None or isinstance(k, bool):
            raise UserError(f"{where} makes a new dimension; give places of the tensor.")
        if isinstance(k, slice) and dim < len(shape):
            for end in (k.start, k.stop):
                if end is not None and (not hasattr(end, "__index__") or not -shape[dim] <= int(end) <= shape[dim]):
                    raise UserError(f"{where} leaves the tensor, whose shape is {tuple(shape)}.")
        dim += k.dim() if isinstance(k, Tensor) and k.dtype == torch.bool else 1


def _written(index: Any) -> str:
    if isinstance(index, slice):
        ends = (
            [str(e) for e in (index.start, index.stop)]
            if index.step is None
            else [str(index.start), str(index.stop), str(index.step)]
        )
        return f"slice({', '.join(ends)})"
    if isinstance(index, tuple):
        return f"({', '.join(_written(i) for i in index)})"
    return "..." if index is Ellipsis else shown(index)
