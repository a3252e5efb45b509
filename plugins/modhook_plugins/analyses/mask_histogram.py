"""Distribution of the control's keep-probabilities sigmoid(l) (reference, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Task, Variable

if TYPE_CHECKING:
    from modhook import FinishedRun

BINS = 500
FLOOR = 2e-4


class MaskHistogram(Analysis):
    """Weights per bin of sigmoid(l), control stage, 500 equal bins on 0..1."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `mask_histogram`."""
        doc = "weights whose sigmoid(logit) in the control stage falls into the bin"
        return (
            Variable("mask_histogram/all", ("bin",), "float64", doc, units="weights"),
            Variable("mask_histogram/above", ("bin",), "float64", f"{doc} and exceeds {FLOOR}", units="weights"),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `bin` with its centre."""
        return {"bin": [(i + 0.5) / BINS for i in range(BINS)]}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count the logits of all masked tensors, in float64."""
        every, above = np.zeros(BINS), np.zeros(BINS)  # (500,)
        for logits in run.logits(run.stages[0]).values():
            keep = logits.double().flatten().sigmoid().cpu().numpy()  # (weights of the tensor,)
            every += np.histogram(keep, BINS, (0, 1))[0]
            above += np.histogram(keep[keep > FLOOR], BINS, (0, 1))[0]
        return {"mask_histogram/all": every, "mask_histogram/above": above}
