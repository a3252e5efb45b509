"""When a mask has settled: hardly a logit changes side of it any more, although each could have crossed long ago."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from modhook.masks.order import Order

WINDOW = 20
"""Rows of the history that are looked at, a tenth of those of all steps."""
STILL = 1e-4
"""The share of all logits that may change side within these rows."""
REACH = 3.0
"""How many times the way from the start to 0 the learning rates must have added up to: before, nothing could have moved."""
LATE = 0.1
"""The last tenth of the steps, over which a mask is seen to change or not."""
_MOST = 1 << 18  # logits that a median looks at


def has_settled(changed: Sequence[float], logits: int, travelled: float, start: float) -> bool:
    """Return whether a mask has settled.

    Args:
        changed: how many logits changed side, row by row, from the start on.
        logits: how many there are.
        travelled: the sum of the learning rates of all steps so far; about as far as an Adam can move a logit. NaN: not known.
        start: the median distance of the logits from 0 before the first step.
    """
    if len(changed) < WINDOW or travelled <= REACH * start:
        return False
    if math.isnan(travelled) and not sum(changed):
        return False
    return sum(changed[-WINDOW:]) <= STILL * logits


def turnover(earlier: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> float:
    """Return the share of the weights that a cut keeps which as large a cut a tenth of the steps before did not keep.

    Args:
        earlier: the logits then, {name: tensor}; empty: not known.
        masks: the masks now, of these names and maybe others.

    NaN where it is not known, or nothing is kept.
    """
    kept = sum(int(masks[n].count_nonzero()) for n in earlier)
    if not kept:
        return math.nan
    before = Order(earlier).cut(kept)
    return 1 - sum(int((before[n] & masks[n].cpu()).count_nonzero()) for n in earlier) / kept


def distances(logits: Iterable[Tensor]) -> tuple[float, float]:
    """Return the median and the smallest distance of logits from 0; of very many every n-th counts for the median."""
    flat = [logit.detach().reshape(-1) for logit in logits if logit.numel()]
    if not flat:
        return 0.0, 0.0
    every = -(-sum(f.numel() for f in flat) // _MOST)
    nearest = min(float(piece.abs().min()) for f in flat for piece in f.split(_MOST))
    return float(torch.cat([f[::every] for f in flat]).abs().median()), nearest
