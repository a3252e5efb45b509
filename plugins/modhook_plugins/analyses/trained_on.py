"""Scores of each mask on items that it was learned on: what a mask loses elsewhere says something only if it does these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge

from modhook import Analysis, Task, Variable, evaluate

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class TrainedOnOptions:
    """Options of the scores on training items."""

    items: Annotated[int, Ge(1)] = 2_000
    """How many items of each stage's training data are measured, drawn once without replacement; all, where it has no more."""


class TrainedOn(Analysis):
    """Every stage's score on items of its own training data, under its mask and without one, measured as test items are."""

    Options = TrainedOnOptions
    options: TrainedOnOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare two variables per metric."""
        under = (("", "under the stage's mask"), ("/unmasked", "of the network without masks"))
        return tuple(
            Variable(
                f"trained_on{group}/{m}",
                ("stage",),
                "float64",
                f"mean {m} {words}, on items that the mask was learned on",
                attrs={"table": task.table(m)},
            )
            for group, words in under
            for m in task.metrics
        )

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Measure both on the same items."""
        found = {
            f"trained_on{group}/{m}": np.full(len(run.stages), np.nan) for group in ("", "/unmasked") for m in run.task.metrics
        }
        for i, stage in enumerate(run.stages):
            network = run.network(stage)
            for group, masks in (("", run.masks[stage]), ("/unmasked", None)):
                batches = run.training_batches(stage, self.options.items)
                means = evaluate(network, masks, batches, run.task.score, off=run.off, seed=run.labels["seed"])
                for m in run.task.metrics:
                    found[f"trained_on{group}/{m}"][i] = means[m]
        return found
