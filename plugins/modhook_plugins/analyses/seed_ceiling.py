"""How alike two masks of one function on one network are: no two functions can be expected to be more alike than that.

The masks of further seeds are learned by the control `seed_ceiling`, which brings this analysis; nothing but the masks' noise and the
order of the batches differs between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge, Le

from modhook import Analysis, Masks, Task, UserError, Variable, chance, iou

if TYPE_CHECKING:
    from torch import Tensor

    from modhook import FinishedRun


@attrs.frozen
class SeedCeilingOptions:
    """Options of the seed ceiling, which `[controls]` sets."""

    seeds: Annotated[int, Ge(2), Le(100)] = 3
    """Masks of each function, the stage's own included."""


class SeedCeiling(Analysis):
    """IoU of masks of different mask seeds: of one function (the diagonal, the ceiling), of two functions, and of random masks."""

    Options = SeedCeilingOptions
    options: SeedCeilingOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `seed_ceiling`."""
        pairs = ("stage", "mask_seed", "other_seed")
        return (
            Variable(
                "seed_ceiling/iou",
                ("stage", "other"),
                "float64",
                "mean |A & B| / |A | B| over masks of two different mask seeds; of a stage with itself: its ceiling",
                attrs={"table": "number"},
            ),
            Variable(
                "seed_ceiling/chance",
                ("stage", "other"),
                "float64",
                "expected of random masks that keep as many weights of each tensor, mean over the same pairs",
                attrs={"table": "number"},
            ),
            Variable(
                "seed_ceiling/pairs", pairs, "float64", "|A & B| / |A | B| of the stage's masks of these two mask seeds"
            ),
            Variable(
                "seed_ceiling/parameter_iou",
                ("stage", "parameter"),
                "float64",
                "mean |A & B| / |A | B| of each tensor over the stage's masks of two different mask seeds: its ceiling; NaN where none "
                "of two keeps a weight of it",
            ),
            Variable(
                "seed_ceiling/parameter_chance",
                ("stage", "parameter"),
                "float64",
                "expected of random masks that keep as many weights of the tensor, mean over the same pairs",
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `other` with the stages, and number the mask seeds; 1 is the stage's own mask."""
        seeds = list(range(1, self.options.seeds + 1))
        return {"other": list(stages), "mask_seed": seeds, "other_seed": seeds}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Compare every two masks of different seeds."""
        n, stages = self.options.seeds, run.stages
        masks = {s: found for s in stages if (found := self._of(run, s)) is not None}
        if not masks:
            raise UserError(
                f"the analysis 'seed_ceiling' needs masks of {n} mask seeds; write [controls] seed_ceiling = {{ seeds = {n} }}."
            )
        measured, expected = (np.full((len(stages), len(stages)), np.nan) for _ in range(2))
        pairs = np.full((len(stages), n, n), np.nan)
        parameters = run.coordinates("seed_ceiling/parameter_iou")["parameter"]
        tensors, random = (np.full((len(stages), len(parameters)), np.nan) for _ in range(2))
        for i, j in itertools.combinations_with_replacement(range(len(stages)), 2):
            if stages[i] not in masks or stages[j] not in masks:
                continue
            # Of one function each pair once; of two the seeds in both orders.
            chosen = [(a, b) for a in range(n) for b in range(n) if a < b or (i != j and a > b)]
            both = [(masks[stages[i]][a], masks[stages[j]][b]) for a, b in chosen]
            values = [iou(one, two) for one, two in both]
            measured[i, j] = measured[j, i] = np.mean(values)
            expected[i, j] = expected[j, i] = np.mean([_by_chance(one, two) for one, two in both])
            if i == j:
                for p, name in enumerate(parameters):
                    if name in masks[stages[i]][0]:  # a sweep over networks has the tensors of all
                        tensors[i, p], random[i, p] = _of_tensor([(one[name], two[name]) for one, two in both])
                for (a, b), value in zip(chosen, values, strict=True):
                    pairs[i, a, b] = pairs[i, b, a] = value
        return {
            "seed_ceiling/iou": measured,
            "seed_ceiling/chance": expected,
            "seed_ceiling/pairs": pairs,
            "seed_ceiling/parameter_iou": tensors,
            "seed_ceiling/parameter_chance": random,
        }

    def _of(self, run: FinishedRun, stage: str) -> list[Masks] | None:
        """Return a stage's masks by mask seed; None where it was learned once only."""
        further = [run.controls.get(f"mask seed {seed}", {}).get(stage) for seed in range(2, self.options.seeds + 1)]
        found = [run.masks[stage], *(m for m in further if m is not None)]
        return found if len(found) == self.options.seeds else None


def _of_tensor(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the mean IoU of two masks of one tensor, and that of random ones of their sizes; pairs that keep nothing are left out."""
    found = []
    for one, other in pairs:
        first, second, either = int(one.sum()), int(other.sum()), int((one | other).sum())
        if either:
            law = chance.total([chance.shared(one.numel(), first, second)])
            found.append((int((one & other).sum()) / either, law.iou(first, second)))
    return tuple(np.mean(found, axis=0).tolist()) if found else (np.nan, np.nan)


def _by_chance(one: Masks, two: Masks) -> float:
    first, second = one.kept(per_tensor=True), two.kept(per_tensor=True)
    laws = [chance.shared(mask.numel(), first[name], second[name]) for name, mask in one.items()]
    return chance.total(laws).iou(one.kept(), two.kept())
