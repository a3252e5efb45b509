"""Half masks (reference, section 6): is the control's mask needed as a whole, or do early or late layers alone decide?

The control's mask is kept on about half of the tensors while the others keep all their weights, then the other way round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge, Le

from modhook import Analysis, Task, UserError, Variable, matching
from modhook.errors import listing

if TYPE_CHECKING:
    from modhook import FinishedRun

HALVES = ("early", "late")


@attrs.frozen
class HalfMaskOptions:
    """Options of the half-mask test; with none, early are the first half (rounded up) of the masked tensors."""

    early: tuple[str, ...] = ()
    """Patterns of the tensors that count as early."""
    random: Annotated[int, Ge(0), Le(100)] = 0
    """Instead, so many different random choices of half (rounded up) of the tensors, drawn from the run's seed. Where there
    are not so many, the rest stay NaN."""

    def __attrs_post_init__(self) -> None:
        if self.early and self.random:
            raise UserError("early and random exclude each other; give one of them.")


class HalfMask(Analysis):
    """Scores on the first split with the control's mask on the early tensors only, and on the late ones only."""

    Options = HalfMaskOptions
    options: HalfMaskOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `half_mask`."""
        where, split = ("choice", "half"), f"on the split {task.splits[0]}"
        return (
            *(
                Variable(
                    f"half_mask/{m}",
                    where,
                    "float64",
                    f"mean {m} under half of the control's mask, {split}",
                    attrs={"table": task.table(m)},
                )
                for m in task.metrics
            ),
            Variable(
                "half_mask/drop",
                where,
                "float64",
                f"{task.metrics[0]} under the control's mask minus that under its half, {split}",
                attrs={"table": task.table(task.metrics[0])},
            ),
            Variable("half_mask/masked", (*where, "parameter"), "uint8", "1 where the mask is kept on the tensor"),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label choices from 1, and the two halves."""
        return {"choice": list(range(1, max(1, self.options.random) + 1)), "half": list(HALVES)}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Measure both halves of every choice."""
        order = [str(x) for x in run.coordinates("half_mask/masked")["parameter"]]
        control, split = run.masks[run.stages[0]], run.task.splits[0]
        choices = max(1, self.options.random)
        found = {m: np.full((choices, len(HALVES)), np.nan) for m in run.task.metrics}
        masked = np.zeros((choices, len(HALVES), len(order)), dtype=np.uint8)
        full = run.score(control, run.stages[0], (split,))
        for c, early in enumerate(self._choices(run, list(control))):
            for h in range(len(HALVES)):
                kept = [n for n in control if (n in early) == (h == 0)]
                scores = run.score(control.like({n: control[n] for n in kept}), run.stages[0], (split,))
                for metric, by_split in scores.items():
                    found[metric][c, h] = by_split[split]
                masked[c, h, [order.index(n) for n in kept]] = 1
        first = run.task.metrics[0]
        return {
            **{f"half_mask/{m}": values for m, values in found.items()},
            "half_mask/drop": full[first][split] - found[first],
            "half_mask/masked": masked,
        }

    def _choices(self, run: FinishedRun, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the early tensors of every choice; `names` are the masked tensors in the network's order."""
        half = math.ceil(len(names) / 2)
        if self.options.random:
            every = list(itertools.combinations(names, half)) if len(names) <= _FEW else None
            return _distinct(names, half, self.options.random, every, run.labels["seed"])
        if not self.options.early:
            return [tuple(names[:half])]
        early = [n for n in matching(run.model, self.options.early, "analyses.half_mask.early") if n in names]
        if not early:
            raise UserError(
                f"analyses.half_mask.early names no masked tensor: {listing(self.options.early)}; masked are {listing(names)}."
            )
        return [tuple(early)]


_FEW = 16
"""Up to so many tensors all choices are listed and drawn from."""


def _distinct(
    names: Sequence[str], half: int, count: int, every: list[tuple[str, ...]] | None, seed: int
) -> list[tuple[str, ...]]:
    """Return up to `count` different choices of `half` names; among many names a repetition is drawn again."""
    rng = np.random.default_rng(seed)
    if every is not None:
        return [every[i] for i in rng.permutation(len(every))[:count]]
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        found[tuple(names[i] for i in sorted(rng.choice(len(names), half, replace=False)))] = None
    return list(found)
