"""Mask stability (reference, section 6): the IoU of two masks of the same function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Task, UserError, Variable, iou

if TYPE_CHECKING:
    from modhook.run import FinishedRun


class Stability(Analysis):
    """IoU between the two masks of every function, per tensor and in total. The task's `repeats` names the two stages."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `stability`. Raises `UserError` for a task that learns no function twice."""
        _repeats(task)
        return (
            Variable("stability/iou", ("function", "parameter"), "float64", "|A & B| / |A | B| in this tensor"),
            Variable(
                "stability/iou_total",
                ("function",),
                "float64",
                "|A & B| / |A | B| over all masked weights",
                attrs={"table": "number"},
            ),
            Variable(
                "stability/chance",
                ("function", "parameter"),
                "float64",
                "IoU expected of independent masks of the same sizes",
            ),
            Variable(
                "stability/chance_total",
                ("function",),
                "float64",
                "IoU expected of independent masks that keep as much of each tensor",
                attrs={"table": "number"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `function`."""
        return {"function": list(_repeats(task))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Compare the two masks of every function."""
        order = [str(x) for x in run.cube.labels("stability/iou")["parameter"]]
        pairs = [(run.masks[a], run.masks[b]) for a, b in _repeats(run.task).values()]
        # (F, P) each, NaN for tensors that this network does not have
        rows, chance = (np.full((len(pairs), len(order)), np.nan) for _ in range(2))
        totals = np.full(len(pairs), np.nan)
        for f, (a, b) in enumerate(pairs):
            both, either = (a & b).kept(per_tensor=True), (a | b).kept(per_tensor=True)
            first, second = a.kept(per_tensor=True), b.kept(per_tensor=True)
            # Independent masks that keep |A| and |B| of n weights share |A| |B| / n of them on average.
            shared = {n: first[n] * second[n] / m.numel() for n, m in a.items()}
            for name, count in either.items():
                row, union = order.index(name), first[name] + second[name] - shared[name]
                rows[f, row] = both[name] / count if count else np.nan
                chance[f, row] = shared[name] / union if union else np.nan
            union = sum(first.values()) + sum(second.values()) - sum(shared.values())
            totals[f] = sum(shared.values()) / union if union else np.nan
        return {
            "stability/iou": rows,
            "stability/iou_total": np.array([iou(a, b) for a, b in pairs]),
            "stability/chance": chance,
            "stability/chance_total": totals,
        }


def _repeats(task: Any) -> dict[str, tuple[str, str]]:
    repeats = dict(getattr(task, "repeats", {}))
    if not repeats:
        raise UserError("the analysis 'stability' needs a task that learns a mask twice, such as cifar10_stability.")
    return repeats
