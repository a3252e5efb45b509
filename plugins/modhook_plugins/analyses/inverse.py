"""Inverse masks (reference, section 6): what can the network still do without the weights that a stage kept?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from modhook import Analysis, Masks, Task, UserError, Variable, matching

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class InverseOptions:
    """Options of the inverse test."""

    io: tuple[str, ...] = ()
    """Patterns of the input and output layers, whose mask is not inverted."""
    io_mask: str = "control"
    """What those layers get instead: "control" (the control stage's mask) or "full" (all weights)."""


class Inverse(Analysis):
    """Scores of every stage's inverted mask, on every split."""

    Options = InverseOptions
    options: InverseOptions

    def __init__(self, options: InverseOptions | None = None) -> None:
        super().__init__(options)
        if self.options.io_mask not in ("control", "full"):
            raise UserError(f"analyses.inverse.io_mask must be 'control' or 'full', not {self.options.io_mask!r}.")

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare one variable per metric."""
        return tuple(
            Variable(
                f"inverse/{m}",
                ("stage", "split"),
                "float64",
                f"mean {m} under the inverted mask of the stage",
                attrs={"table": task.table(m), "complement_of": f"scores/{m}"},
            )
            for m in task.metrics
        )

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Evaluate every inverted mask."""
        found = {m: np.full((len(run.stages), len(run.task.splits)), np.nan) for m in run.task.metrics}
        for i, stage in enumerate(run.stages):
            scores = run.score(self._inverted(run, stage), stage)
            for metric, by_split in scores.items():
                found[metric][i] = [by_split[s] for s in run.task.splits]
        return {f"inverse/{m}": values for m, values in found.items()}

    def _inverted(self, run: FinishedRun, stage: str) -> Masks:
        inverted = ~run.masks[stage]
        if not self.options.io:
            return inverted
        names: Sequence[str] = matching(run.model, self.options.io, "analyses.inverse.io")
        control = run.masks[run.stages[0]]
        full = {n: torch.ones_like(m) for n, m in control.items()}
        instead = control if self.options.io_mask == "control" else full
        return inverted.like({n: instead[n] if n in names else m for n, m in inverted.items()})
