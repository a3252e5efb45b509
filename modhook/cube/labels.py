"""Labels of dimensions: what may be one, how it is stored, and how it is found again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhook.errors import CubeError, listing, near_miss

Label = str | int | float


def label_of(value: Any) -> Label:
    """Return a value as a label: text or a finite number.

    A list becomes text, `[800, 800, 800, 800]` -> "800x4" and `[400, 400, 200]` -> "400-400-200"; a bool becomes
    "true" or "false". Raises `CubeError` for anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise CubeError(f"{value} cannot label a dimension of a cube; use a finite number.")
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)) and value:
        parts = [str(label_of(v)) for v in value]
        return f"{parts[0]}x{len(parts)}" if len(parts) > 1 and len(set(parts)) == 1 else "-".join(parts)
    raise CubeError(f"{value!r} cannot label a dimension of a cube; use text, a number or a list of them.")


def labels_of(values: Iterable[Any], where: str) -> tuple[Label, ...]:
    """Return all labels of one dimension, in one type. Raises `CubeError` for two equal labels."""
    labels = [label_of(v) for v in values]
    if any(isinstance(v, str) for v in labels):
        labels = [str(v) for v in labels]
    elif any(isinstance(v, float) for v in labels):
        labels = [float(v) for v in labels]
    elif any(not -(2**63) <= int(v) < 2**63 for v in labels):
        raise CubeError(f"a label of {where} does not fit into 64 bits.")
    if len(set(labels)) < len(labels):
        twice = [v for i, v in enumerate(labels) if v in labels[:i]]
        raise CubeError(f"{where} has the label {twice[0]!r} twice; every label must be there once.")
    return tuple(labels)


def label_array(labels: Sequence[Label]) -> NDArray[Any]:
    """Return labels as the array that is stored: int64, float64 or object strings (zarr warns about numpy's `str`)."""
    kinds = {type(v) for v in labels}
    if kinds == {int}:
        return np.array(labels, dtype=np.int64)
    if kinds == {float}:
        return np.array(labels, dtype=np.float64)
    return np.array(labels, dtype=object)


def position(labels: Sequence[Label], value: Any, dimension: str, where: str) -> int:
    """Return the index of a label. Raises `CubeError` that lists the valid ones."""
    wanted = label_of(value)
    if isinstance(wanted, str) != any(isinstance(v, str) for v in labels):
        wanted = str(wanted)  # a mixed sweep is stored as text; a number that is asked for as text finds nothing
    if isinstance(wanted, int) and abs(wanted) < 2**63 and any(isinstance(v, float) for v in labels):
        wanted = float(wanted)  # as the label was: not every large whole number is a float64
    try:
        return labels.index(wanted)
    except ValueError:
        close = near_miss(wanted, [v for v in labels if isinstance(v, str)]) if isinstance(wanted, str) else ""
        raise CubeError(f"{where} has no {dimension} {value!r}{close}; it has: {listing(map(str, labels))}.") from None
