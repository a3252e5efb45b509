"""Values on their way into a cube: shape and type must fit exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhook.errors import CubeError


def fitted(value: Any, dtype: str, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Return `value` as an array of exactly this shape and type; text as object strings.

    Arrays and tensors must have the type already. Plain Python numbers, and lists of them, are converted where no value
    changes its kind. Raises `CubeError`.
    """
    if hasattr(value, "detach"):  # a tensor, which may be on another device or require a gradient
        value = value.detach().cpu()
    array = np.asarray(value)
    typed = hasattr(value, "dtype")
    if array.shape != shape:
        raise CubeError(f"{where} takes an array of shape {shape}, but got one of shape {array.shape}.")
    if dtype == "str":
        return _text(array, where)
    wanted = np.dtype(dtype)
    if array.dtype == wanted:
        return array
    if typed or not _lossless_kind(array, wanted):
        raise CubeError(f"{where} is declared as {dtype}, but got {array.dtype}; convert it first.")
    return array.astype(wanted)


def _text(array: NDArray[Any], where: str) -> NDArray[Any]:
    items = array.astype(object)
    if not all(isinstance(v, str) for v in items.ravel()):
        raise CubeError(f"{where} is declared as str, but got {array.dtype} with other values; convert it first.")
    return items


def _lossless_kind(array: NDArray[Any], wanted: np.dtype[Any]) -> bool:
    if array.size == 0:
        return True
    if wanted.kind == "f":
        return array.dtype.kind in "iuf"
    info = np.iinfo(wanted)
    return array.dtype.kind in "iu" and bool(array.min() >= info.min and array.max() <= info.max)
