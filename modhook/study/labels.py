"""Coordinate labels of sweep values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modhook.study.study import Label
from modhook.values.bounds import Rejected
from modhook.values.text import number, written


def labels(values: Sequence[Any]) -> list[Label]:
    """Return one label per value of a sweep: numbers if all are numbers, or else texts."""
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return list(values)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(v) for v in values]
    return [spelled(v) for v in values]


def spelled(value: Any) -> str:
    """Write a value as a label: `[800, 800, 800, 800]` is `800x4`, `[400, 400, 200]` is `400-400-200`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return written(value)
    if isinstance(value, int | float):
        return number(value)
    inner = [spelled(v) for v in value]
    if len(inner) > 1 and len(set(inner)) == 1 and not isinstance(value[0], list | tuple):
        return f"{inner[0]}x{len(inner)}"
    return ("," if any("-" in text or "," in text for text in inner) else "-").join(inner) or "empty"


def check_value(value: Any) -> None:
    """Raise `Rejected` for what cannot be a sweep value."""
    if isinstance(value, list):
        for entry in value:
            check_value(entry)
    elif not isinstance(value, bool | int | float | str):
        raise Rejected(f"{written(value)} is no number, text, truth value or list")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Rejected(f"{written(value)} is not finite")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise Rejected(f"{written(value)} is too large for a whole number of 64 bits")
