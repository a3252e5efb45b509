"""A control's masks beside those of its stage: what they score at equal size, and how large they are at equal score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from modhook.masks import Masks
from modhook.masks.order import Order, smallest_enough
from modhook.masks.select import matching
from modhook.network.twin import twin as copied
from modhook.plugin.contract import Scores, StageRecord
from modhook.plugin.interfaces import Task
from modhook.run.context import Context
from modhook.run.measuring import score
from modhook.study import Study
from modhook.study.sections import Cut

if TYPE_CHECKING:
    from modhook.run.control import ControlContext

_GRID = 12
"""Sizes that are tried first where the smallest cut that scores enough is looked for."""


def compare(context: ControlContext, stage: str, record: StageRecord, cut: Any) -> dict[str, Any]:
    """Return what is written about a control's stage below `controls`, its scores and history aside.

    Where the study's masks are cut by a score (`within`), the control's masks in `record` are cut to what the stage's own had
    to reach; where no cut of its ranking does, they stay those of the sampler's threshold.
    """
    task, splits, metrics = context.task, context.task.splits, context.task.metrics
    network = context.model
    if type(task).edit_network is not Task.edit_network:
        network = copied(network)
        with torch.no_grad():
            task.edit_network(network, stage)

    def scores(masks: Masks | None, which: Sequence[str] | None = None) -> Scores:
        size, off = context.study.train.eval_batch, context.off()
        return score(task, network, masks, size, context.device, which, off, context.seed)

    assert record.masks is not None
    assert record.logits is not None
    of, fixed = Context.masks(context, stage), _fixed(task, stage, record.masks, network)
    learned = {name: values for name, values in record.logits.items() if name not in fixed}
    found: dict[str, Any] = {"of_density": of.density, "equal_score": math.nan}
    equal: Scores = {m: dict.fromkeys(splits, math.nan) for m in metrics}
    if learned:
        order = Order(learned)
        split, metric = compared_by(context.study, task, stage, cut)

        def masks(count: int) -> Masks:
            return of.like({**order.cut(count), **fixed})

        def measured(count: int) -> float:
            return scores(masks(count), (split,))[metric][split]

        goal = _goal(context, stage, split, metric, cut)
        own = sum(int(record.masks[name].sum()) for name in learned)
        smallest = smallest_enough(measured, [0, *order.sizes(_GRID), own], goal)
        if smallest is not None:
            found["equal_score"] = masks(smallest).density
            if _by_score(cut):
                record.masks = masks(smallest)
                record.scores = scores(record.masks)
        equal = scores(masks(sum(int(of[name].sum()) for name in learned)))
    found["density"] = record.masks.density
    for group, values in (("unmasked", scores(None)), ("equal_size", equal)):
        found |= {f"{group}/{m}": [values[m][s] for s in splits] for m in metrics}
    return found


def compared_by(study: Study, task: Task, stage: str, cut: Any) -> tuple[str, str]:
    """Return the split and the metric by which a stage's masks are compared.

    The split of the stage's name, where there is one, or the task's first; with masks cut by a score, what the cut names.
    """
    by = cut if _by_score(cut) else Cut()
    return by.measured_by(stage, task.splits, task.metrics)


def _goal(context: ControlContext, stage: str, split: str, metric: str, cut: Any) -> float:
    """Return what a cut must score: what the stage's mask scores, or what `within` asked of it."""
    at = list(context.task.splits).index(split)
    name = f"scores/{metric}"
    if not _by_score(cut):
        return float(context.cube.read(name, context.labels, stage=stage)[at])
    whole = float(context.cube.read(name, context.labels, stage="unmasked")[at])
    return whole - float(cut.within) * abs(whole)


def _by_score(cut: Any) -> bool:
    return isinstance(cut, Cut) and cut.within is not None


def _fixed(task: Task, stage: str, masks: Masks, network: Any) -> dict[str, Any]:
    """Return the masks that the stage copies and does not learn."""
    patterns = next((s.copied for s in task.stages if s.name == stage), ())
    if masks.units is not None:
        return dict(masks.select(patterns)) if patterns else {}
    names = matching(network, patterns, f"stage {stage}: copied") if patterns else ()
    return {name: masks[name] for name in names if name in masks}
