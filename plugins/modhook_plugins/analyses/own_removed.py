"""The network without what one function keeps alone: does that function break, do the others not?

Own weights of a function are those that its mask keeps and no other function's mask does; the control, which is masked for the
whole task, is no function. Beside it, as many weights of each tensor are taken out at random: of those that the function's mask does
not keep, and of all. Where nearly every weight is needed, some of all break the function as surely as its own; without others it lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge, Le

from modhook import Analysis, Masks, Task, Variable
from modhook_plugins.analyses.random_weights import drawn, mean_and_each, score_variables

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class OwnRemovedOptions:
    """Options of the removal."""

    draws: Annotated[int, Ge(1), Le(1000)] = 5
    """How many random removals of either kind stand beside each function's."""


REST, REST_DRAWS = "own_removed/rest", "own_removed/rest_draws"


class OwnRemoved(Analysis):
    """Scores without each function's own weights, on every split, and without as many at random: of those that its mask does not
    keep, and of all; NaN for the control."""

    Options = OwnRemovedOptions
    options: OwnRemovedOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare scores without own weights, without random ones, and how many they are."""
        return (
            *(
                Variable(
                    f"own_removed/{m}",
                    ("stage", "split"),
                    "float64",
                    f"mean {m} of the network without the weights that this function keeps and no other does",
                    attrs={"table": task.table(m)},
                )
                for m in task.metrics
            ),
            *score_variables(
                "own_removed/random", task, "of the network without as many weights of each tensor, drawn at random"
            ),
            *score_variables(
                REST,
                task,
                "of the network without as many weights of each tensor that this function's mask does not keep, drawn at random "
                "(where fewer are left, without all of these)",
                REST_DRAWS,
            ),
            Variable(
                "own_removed/rest_share",
                ("stage",),
                "float64",
                "how many weights its mask does not keep are taken out, as a share of its own; below 1 where a tensor has fewer",
            ),
            Variable(
                "own_removed/own",
                ("stage", "parameter"),
                "float64",
                "weights of this tensor that this function keeps and no other does",
                units="weights",
            ),
            Variable("own_removed/share", ("stage",), "float64", "share of all masked weights that is taken out"),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Number the draws from 1."""
        return {"draw": list(range(1, self.options.draws + 1))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Take out and score."""
        stages, splits, draws = run.stages, run.task.splits, self.options.draws
        order = [str(x) for x in run.coordinates("own_removed/own")["parameter"]]
        found = {m: np.full((len(stages), len(splits)), np.nan) for m in run.task.metrics}
        each, rest = (
            {m: np.full((len(stages), draws, len(splits)), np.nan) for m in run.task.metrics} for _ in range(2)
        )
        matched = np.full(len(stages), np.nan)
        count, share = np.full((len(stages), len(order)), np.nan), np.full(len(stages), np.nan)
        functions = stages[1 if run.task.control else 0 :]
        for i, stage in enumerate(stages):
            if stage not in functions:
                continue
            own = own_weights(run.masks[stage], [run.masks[s] for s in functions if s != stage])
            for name, kept in own.kept(per_tensor=True).items():
                count[i, order.index(name)] = kept
            share[i] = own.density
            for metric, by_split in run.score(~own, stage).items():
                found[metric][i] = [by_split[s] for s in splits]
            for d in range(draws):
                random = drawn(own, "own removed", run.labels["seed"], stage, d + 1)
                other = drawn(own, "rest removed", run.labels["seed"], stage, d + 1, spared=run.masks[stage])
                matched[i] = other.kept() / own.kept() if own.kept() else 1.0
                for values, out in ((each, random), (rest, other)):
                    for metric, by_split in run.score(~out, stage).items():
                        values[metric][i, d] = [by_split[s] for s in splits]
        return {
            **{f"own_removed/{m}": values for m, values in found.items()},
            **mean_and_each("own_removed/random", each),
            **mean_and_each(REST, rest, REST_DRAWS),
            "own_removed/rest_share": matched,
            "own_removed/own": count,
            "own_removed/share": share,
        }


def own_weights(mask: Masks, others: Sequence[Masks]) -> Masks:
    """Return what a mask keeps and none of the others does."""
    return mask - reduce(or_, others) if others else mask
