"""Mask stability (reference, section 6): the IoU of two masks of the same function, and what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Task, UserError, Variable, chance, iou

if TYPE_CHECKING:
    from modhook import FinishedRun


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
                "IoU expected of random masks that keep as many of the tensor's weights",
            ),
            Variable(
                "stability/chance_total",
                ("function",),
                "float64",
                "IoU expected of random masks that keep as many of each tensor's weights",
                attrs={"table": "number"},
            ),
            Variable(
                "stability/classes", ("function",), "str", "the classes that the function tells apart, in this run"
            ),
            Variable("stability/ratio", ("function", "parameter"), "float64", "measured IoU over chance"),
            Variable(
                "stability/ratio_total",
                ("function",),
                "float64",
                "measured IoU over chance, over all masked weights",
                attrs={"table": "number"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `function`."""
        return {"function": list(_repeats(task))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Compare the two masks of every function."""
        order = [str(x) for x in run.coordinates("stability/iou")["parameter"]]
        pairs = [(run.masks[a], run.masks[b]) for a, b in _repeats(run.task).values()]
        # (F, P) each, NaN for tensors that this network does not have
        measured, expected = (np.full((len(pairs), len(order)), np.nan) for _ in range(2))
        expected_total = np.full(len(pairs), np.nan)
        for f, (a, b) in enumerate(pairs):
            both, first, second = (m.kept(per_tensor=True) for m in (a & b, a, b))
            laws = {n: chance.shared(m.numel(), first[n], second[n]) for n, m in a.items()}
            for name, law in laws.items():
                p, union = order.index(name), first[name] + second[name] - both[name]
                measured[f, p] = both[name] / union if union else np.nan
                expected[f, p] = law.iou(first[name], second[name])
            expected_total[f] = chance.total(list(laws.values())).iou(a.kept(), b.kept())
        measured_total = np.array([iou(a, b) for a, b in pairs])  # (F,)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "stability/iou": measured,
                "stability/iou_total": measured_total,
                "stability/classes": np.array([_classes(run.task, name) for name in _repeats(run.task)], dtype=object),
                "stability/chance": expected,
                "stability/chance_total": expected_total,
                "stability/ratio": np.where(expected > 0, measured / expected, np.nan),
                "stability/ratio_total": np.where(expected_total > 0, measured_total / expected_total, np.nan),
            }


def _repeats(task: Any) -> dict[str, tuple[str, str]]:
    repeats = dict(getattr(task, "repeats", {}))
    if not repeats:
        raise UserError("the analysis 'stability' needs a task that learns a mask twice, such as cifar10_stability.")
    return repeats


def _classes(task: Any, name: str) -> str:
    return ", ".join(getattr(task, "sets", {}).get(name, ()))
