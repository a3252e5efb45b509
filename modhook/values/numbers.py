"""Numbers and truth values of Python, numpy and torch, taken for what they are, and nothing else for a number."""

from __future__ import annotations

import math
import operator
from typing import Any

from modhook.values.bounds import Rejected
from modhook.values.text import written

_LARGEST = 2**63 - 1


def whole(value: Any, _: Any = None) -> int:
    """Return a whole number as Python's; refuse truth values, numbers with a fraction and texts. Raises `Rejected`."""
    try:
        if is_truth(value) or not _single(value):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        hint = f"; write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise Rejected(f"{written(value)} is not a whole number{hint}{_quotes(value)}") from None
    if abs(number) > _LARGEST:
        raise Rejected(f"{written(number)} is too large for a whole number of 64 bits")
    return number


def real(value: Any, _: Any = None) -> float:
    """Return a finite number as Python's float; refuse truth values and texts. Raises `Rejected`."""
    if is_truth(value) or not hasattr(value, "__float__") or not _single(value):
        raise Rejected(f"{written(value)} is not a number{_quotes(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise Rejected(f"{written(value)} is too large") from None
    except (TypeError, ValueError, RuntimeError):  # a complex number of numpy or torch
        raise Rejected(f"{written(value)} is not a number") from None
    if not math.isfinite(number):
        raise Rejected(f"{written(value)} is not finite")
    return number


def truth(value: Any, _: Any = None) -> bool:
    """Return a truth value as Python's. Raises `Rejected`."""
    if not is_truth(value):
        raise Rejected(f"{written(value)} is neither true nor false{_quotes(value)}")
    return bool(value)


def is_truth(value: Any) -> bool:
    """Return whether a value is true or false, of Python, numpy or torch."""
    # By its type's name: neither numpy nor torch is imported for it.
    kind = str(getattr(value, "dtype", ""))
    return isinstance(value, bool) or (kind in ("bool", "torch.bool") and _single(value))


def _single(value: Any) -> bool:
    """Return whether a value is no array, or one without a dimension."""
    return tuple(getattr(value, "shape", ())) == ()


def _quotes(value: Any) -> str:
    return "; leave out the quotes" if isinstance(value, str) and _reads_as_value(value) else ""


def _reads_as_value(value: str) -> bool:
    if value in ("true", "false"):
        return True
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
