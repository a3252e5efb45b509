"""The loss of one set of weights on the groups of a batch, without noise: how the deterministic mask is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modhook.errors import StackError, UserError
from modhook.fit.groups import batch_size, cut, part
from modhook.stacked import Stacked
from modhook.steps.loop import record_every
from modhook.steps.ranks import add_up, agree, share
from modhook.values.randomness import undisturbed

MEASURE_EVERY = 60
"""Fewest steps between two measurements of the deterministic mask, whose two forward passes take about a step's time."""
SHORT = 20
"""Fewer steps than this are over before the unmasked network is measured, too: it would take more than a tenth of their time."""


def measures(number: int, steps: int) -> bool:
    """Return whether the deterministic mask is measured at the recorded step `number` (from 1) of `steps`."""
    every = record_every(steps)
    return number == steps or number % (every * -(-MEASURE_EVERY // every)) == 0


def mean_loss(stacked: Stacked | None, weights: Mapping[str, Tensor], groups: Any, samples: int, chunk: int) -> float:
    """Return the mean loss of all groups under one set of weights, `chunk` groups at once, added up over the ranks.

    NaN where the network fails under it. Random numbers that are drawn on the way, by dropout, are drawn again later.
    A rank without a sample has no stack, and adds nothing.
    """
    loss, mine, error = 0.0, share(samples), None
    try:
        # Not under no_grad: a loss may take gradients of its own, as those of the inputs.
        with undisturbed(), torch.enable_grad():
            if stacked is not None:
                with stacked.aside():
                    for start in range(mine.start, mine.stop, chunk):
                        stop = min(start + chunk, mine.stop)
                        params = {n: w.expand(stop - start, *w.shape) for n, w in weights.items()}
                        losses = stacked(params, part(groups, start, stop))  # (k,)
                        loss += float(losses.detach().sum()) / samples
    except StackError as failure:  # the network itself may have changed
        error = failure
    except Exception:
        loss = math.nan
    agree(error)
    return add_up([], loss)


def cut_held(batch: Any, samples: int) -> Any:
    """Return the held-out batch, cut into groups. Raises `UserError` for one with fewer items than groups."""
    items = batch_size(batch)
    if items < samples:
        raise UserError(
            f"the first batch of valid has {items} items, but is measured in {samples} groups, one per mask sample; "
            "give a larger one."
        )
    return cut(batch, samples)
