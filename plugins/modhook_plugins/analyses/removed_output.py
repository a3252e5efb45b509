"""Removed output weights (reference, section 6): which tokens does a stage's mask cut off from the output layer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from torch import Tensor

from modhook import Analysis, Task, UserError, Variable, matching
from modhook.errors import listing

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class RemovedOutputOptions:
    """Options of the analysis `removed_output`."""

    output: tuple[str, ...] = ()
    """Patterns of the output layer's tensors, one row per token; by default the last masked matrix."""


class RemovedOutput(Analysis):
    """Share of each token's output weights in the control's mask that the stage's mask drops. The task must have `tokens`."""

    Options = RemovedOutputOptions
    options: RemovedOutputOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `removed_output`. Raises `UserError` for a task without tokens or control."""
        _tokens(task)
        doc = "share of the control's output weights of the token that the stage drops; NaN where the control has none"
        return (Variable("removed_output/removed", ("stage", "token"), "float64", doc),)

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label the output tokens."""
        return {"token": _tokens(task)}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every token's row, over all output tensors together."""
        every = {s: run.masks[s] if run.masks[s].units is None else run.masks[s].weights(run.model) for s in run.stages}
        control = every[run.stages[0]]
        names = self._output(run, control)
        removed = np.full((len(run.stages), len(_tokens(run.task))), np.nan)
        kept = sum(_rows(control[n]) for n in names)  # (V,)
        for s, stage in enumerate(run.stages):
            dropped = sum(_rows(control[n] & ~every[stage][n]) for n in names)  # (V,)
            with np.errstate(invalid="ignore"):
                removed[s] = np.where(kept > 0, dropped / kept, np.nan)
        return {"removed_output/removed": removed}

    def _output(self, run: FinishedRun, masks: Any) -> list[str]:
        if self.options.output:
            wanted = matching(run.model, self.options.output, "analyses.removed_output.output")
            names = [n for n in wanted if n in masks]
        else:
            names = [n for n, m in masks.items() if m.dim() == 2][-1:]
        tokens = len(_tokens(run.task))
        if not names or any(len(masks[n]) != tokens for n in names):
            found = listing(f"{n} {tuple(m.shape)}" for n, m in masks.items())
            raise UserError(
                f"analyses.removed_output.output must name masked tensors with one row for each of the {tokens} tokens; "
                f"masked are: {found}."
            )
        return names


def _rows(mask: Tensor) -> Any:
    """Return how many weights each row keeps, float64 (rows,)."""
    return mask.flatten(1).sum(1).double().numpy() if mask.dim() > 1 else mask.double().numpy()


def _tokens(task: Any) -> list[str]:
    tokens = [str(t) for t in getattr(task, "tokens", ())]
    if not tokens:
        raise UserError("the analysis 'removed_output' needs a task that writes tokens, such as scan.")
    if not task.control:
        raise UserError("the analysis 'removed_output' compares with the control, which this task does not have.")
    return tokens
