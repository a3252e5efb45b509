"""The largest weights, as many as a mask keeps: what a mask of this size scores that has learned nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Order, Task, Variable, iou

if TYPE_CHECKING:
    from modhook import FinishedRun


class MagnitudeMasks(Analysis):
    """Scores of the weights with the largest |w| over all masked tensors together, and how many of them the mask keeps too."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare one variable per metric, and the IoU with the mask."""
        return (
            *(
                Variable(
                    f"magnitude/{m}",
                    ("stage", "split"),
                    "float64",
                    f"mean {m} with the largest weights alone, as many as the stage's mask keeps",
                    attrs={"table": task.table(m)},
                )
                for m in task.metrics
            ),
            Variable(
                "magnitude/iou",
                ("stage",),
                "float64",
                "|A & B| / |A | B| of the stage's mask and that of the largest weights",
            ),
        )

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Cut through the order of |w| and score."""
        splits = run.task.splits
        found = {m: np.full((len(run.stages), len(splits)), np.nan) for m in run.task.metrics}
        overlap = np.full(len(run.stages), np.nan)
        for i, stage in enumerate(run.stages):
            own, network = run.masks[stage], run.network(stage)
            # Of a unit, the mean over its weights.
            order = Order(own.pooled({name: p.detach().abs().cpu() for name, p in network.named_parameters()}))
            masks = own.like(order.cut(own.kept()))
            overlap[i] = iou(own, masks)
            for metric, by_split in run.score(masks, stage).items():
                found[metric][i] = [by_split[s] for s in splits]
        return {f"magnitude/{m}": values for m, values in found.items()} | {"magnitude/iou": overlap}
