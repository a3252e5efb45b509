"""The largest of many numbers in three passes over them, compiled for CPU; torch's operations would take ten, most on one thread."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from modhook.noise.kernels import as_many, compiled, spread

SPAN = 1 << 14
"""Numbers that are looked at in a row, by one thread."""
Numbers = npt.NDArray[Any]


@spread
def count(flat, low, high, above, inside):  # type: ignore[no-untyped-def]
    """Count, for every span, the numbers above `high`, and those from `low` to it."""
    for b in numba.prange(above.size):
        part, more, between = flat[b * SPAN : (b + 1) * SPAN], 0, 0
        for n in range(part.size):
            more += part[n] > high
            between += (part[n] >= low) & (part[n] <= high)
        above[b], inside[b] = more, between


@spread
def collect(flat, low, high, starts, out):  # type: ignore[no-untyped-def]
    """Write the numbers from `low` to `high` into `out`, those of span b from starts[b] on."""
    for b in numba.prange(starts.size):
        part, found, at = flat[b * SPAN : (b + 1) * SPAN], np.empty(SPAN + 1, flat.dtype), 0
        for n in range(part.size):  # without a branch, which would be guessed wrong too often
            x = part[n]
            found[at] = x
            at += (x >= low) & (x <= high)
        out[starts[b] : starts[b] + at] = found[:at]


@spread
def mark(flat, least, equal, out):  # type: ignore[no-untyped-def]
    """Write whether numbers are above `least`, and count those that are equal to it, for every span."""
    for b in numba.prange(equal.size):
        part, row, same = flat[b * SPAN : (b + 1) * SPAN], out[b * SPAN : (b + 1) * SPAN], 0
        for n in range(part.size):
            row[n] = part[n] > least
            same += part[n] == least
        equal[b] = same


_ALONE = tuple(compiled(kernel.py_func) for kernel in (count, collect, mark))


def largest(flat: Numbers, kept: int, low: Any, high: Any, threads: int) -> npt.NDArray[np.bool_] | None:
    """Return the mask of the `kept` largest numbers (n,), of equal ones the first; None where the least is not in [low, high]."""
    spans = -(-flat.size // SPAN)
    above, inside, equal = (np.empty(spans, np.int64) for _ in range(3))
    with as_many(threads) as several:
        count_, collect_, mark_ = (count, collect, mark) if several > 1 else _ALONE
        count_(flat, low, high, above, inside)
        left, ends = kept - int(above.sum()), np.cumsum(inside)
        if not 0 < left <= ends[-1]:
            return None
        between = np.empty(ends[-1], flat.dtype)
        collect_(flat, low, high, ends - inside, between)
        least = np.partition(between, len(between) - left)[len(between) - left]
        mask = np.empty(flat.size, np.bool_)
        mark_(flat, least, equal, mask)
    left -= int((between > least).sum())
    for b in np.flatnonzero(equal):
        if left <= 0:
            break
        at = b * SPAN + np.flatnonzero(flat[b * SPAN : (b + 1) * SPAN] == least)[:left]
        mask[at] = True
        left -= len(at)
    return mask
