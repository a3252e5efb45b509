"""Operation confusion (reference, section 6): which operation's result does the network write under a mask, and without its weights?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modhook import Analysis, Task, UserError, Variable

if TYPE_CHECKING:
    from modhook import FinishedRun

NONE = "none"


class OperationConfusion(Analysis):
    """Counts and shares on the first split, under every stage's mask and under its inverse (the weights that it does not keep).

    A number that is the result of several operations counts for each of them.

    The task must have `operations` (names), `predict(net, batch)` (B,), the number that is written, `results(batch)`
    (B, operations), and batches that say which `operation` (B,) is asked for.
    """

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `operation_confusion`. Raises `UserError` for a task without operations."""
        _operations(task)
        dims = ("stage", "true", "produced")
        found = []
        for prefix, where in (("", "under the mask"), ("inverse_", "under the inverted mask")):
            found += [
                Variable(
                    f"operation_confusion/{prefix}count",
                    dims,
                    "float64",
                    f"problems of the operation for which the result of the other was written {where}, split {task.splits[0]}",
                    units="problems",
                ),
                Variable(
                    f"operation_confusion/{prefix}share",
                    dims,
                    "float64",
                    f"the counts {where} over their row's sum; a row without problems is NaN",
                    attrs={"table": "percent"},
                ),
            ]
        return tuple(found)

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label what was asked for, and what was written, `none` if the number is no operation's result."""
        return {"true": _operations(task), "produced": [*_operations(task), NONE]}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every stage's numbers."""
        found: dict[str, Any] = {}
        for prefix, inverted in (("", False), ("inverse_", True)):
            count = np.stack([counts(run, stage, inverted) for stage in run.stages])  # (S, O, O + 1)
            with np.errstate(invalid="ignore"):
                share = count / count.sum(-1, keepdims=True)
            found |= {f"operation_confusion/{prefix}count": count, f"operation_confusion/{prefix}share": share}
        return found


def counts(run: FinishedRun, stage: str, inverted: bool) -> np.ndarray[Any, Any]:
    """Return how often each operation's result was written (O, O + 1), one row per operation that was asked for."""
    masks = ~run.masks[stage] if inverted else run.masks[stage]
    task: Any = run.task
    names = _operations(task)
    found = np.zeros((len(names), len(names) + 1))
    with masks.applied_to(run.network(stage), run.off, seed=run.labels["seed"]) as model, torch.no_grad():
        for batch in run.batches(task.splits[0]):
            hit = task.results(batch) == task.predict(model, batch).unsqueeze(-1)  # (B, O)
            produced = torch.cat([hit, ~hit.any(-1, keepdim=True)], -1).double()  # (B, O + 1)
            asked = torch.nn.functional.one_hot(batch["operation"].long(), len(names)).double()  # (B, O)
            found += (asked.T @ produced).cpu().numpy()
    return found


def _operations(task: Any) -> list[str]:
    names = list(getattr(task, "operations", ()))
    if not names or not hasattr(task, "predict") or not hasattr(task, "results"):
        raise UserError("the analysis 'operation_confusion' needs a task with several operations, such as addmul.")
    return names
