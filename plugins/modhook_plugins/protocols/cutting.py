"""Which cut through the ranking of a stage's logits its masks are (`masks.cut`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from modhook import Fit, Masks, UserError

if TYPE_CHECKING:
    from torch import nn

    from modhook import RunContext


def cut(context: RunContext, fit: Fit, model: nn.Module, stage: str) -> Masks:
    """Return a stage's masks as `masks.cut` wants them. Raises `UserError` for a score that nothing can be compared with.

    `within` is measured on the split that is named, else on the stage's own (of the same name), else on the first.
    """
    wanted, task = context.study.masks.cut, context.task
    if wanted == "threshold":
        return fit.masks
    if wanted.density is not None:
        return _noted(fit, fit.cut(density=wanted.density))
    split, metric = wanted.measured_by(stage, task.splits, task.metrics)

    def measure(masks: Masks | None) -> float:
        found = context.score(masks, model, (split,))[metric][split]
        if math.isfinite(found):
            return found
        if masks is not None:  # under these masks alone: they are not enough
            return -math.inf
        raise UserError(
            f"{metric} on {split} is {found}, by which no masks can be cut; choose another split or metric, or a score that is finite."
        )

    return _noted(fit, fit.smallest_by(measure, wanted.within))


def _noted(fit: Fit, masks: Masks) -> Masks:
    """Note in the history how much the cut was still changing, and return it."""
    fit.history.attrs["turnover"] = fit.turnover(masks)
    return masks
