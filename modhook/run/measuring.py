"""Scores of a task's network on its splits, or on other sets, under masks or without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from modhook.masks import Masks
from modhook.masks.evaluation import evaluate
from modhook.masks.off import Off
from modhook.plugin.contract import Scores
from modhook.plugin.interfaces import Batch, Task
from modhook.run.data import in_order


def score(
    task: Task,
    model: nn.Module,
    masks: Masks | None,
    size: int,
    device: torch.device,
    splits: Sequence[str] | None = None,
    off: Off = None,
    seed: int = 0,
) -> Scores:
    """Return {metric: {split: mean}} of the network, under masks if given; all splits, unless some are given."""
    wanted = task.splits if splits is None else splits
    return measure(task, model, masks, ((split, task.test_set(split)) for split in wanted), size, device, off, seed)


def measure(
    task: Task,
    model: nn.Module,
    masks: Masks | None,
    sets: Iterable[tuple[str, Batch | None]],
    size: int,
    device: torch.device,
    off: Off = None,
    seed: int = 0,
) -> Scores:
    """Return {metric: {name: mean}} of the network on named data sets, under masks if given; NaN where there is no set.

    `off` and `seed` say what masked weights become, as in `evaluate`.
    """
    found: Scores = {metric: {} for metric in task.metrics}
    for name, data in sets:
        batches = None if data is None else in_order(task, data, size, device)
        means = None if batches is None else evaluate(model, masks, batches, task.score, off=off, seed=seed)
        for metric in task.metrics:
            found[metric][name] = float("nan") if means is None else means[metric]
    return found
