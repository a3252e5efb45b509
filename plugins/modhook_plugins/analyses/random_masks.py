"""Random masks of a mask's own density: what any mask of this size scores, whatever it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge, Le

from modhook import Analysis, Task, Variable
from modhook_plugins.analyses.random_weights import drawn, mean_and_each, score_variables

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class RandomOptions:
    """Options of the random masks."""

    draws: Annotated[int, Ge(1), Le(1000)] = 5
    """How many masks are drawn for each stage."""


class RandomMasks(Analysis):
    """Scores of masks that keep as many weights of each tensor as the stage's own mask, drawn uniformly."""

    Options = RandomOptions
    options: RandomOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare mean and every draw of each metric."""
        return tuple(score_variables("random", task, "under a random mask with as many weights of each tensor"))

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Number the draws from 1."""
        return {"draw": list(range(1, self.options.draws + 1))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Draw and score."""
        splits, draws = run.task.splits, self.options.draws
        each = {m: np.full((len(run.stages), draws, len(splits)), np.nan) for m in run.task.metrics}
        for i, stage in enumerate(run.stages):
            for d in range(draws):
                masks = drawn(run.masks[stage], "random", run.labels["seed"], stage, d + 1)
                for metric, by_split in run.score(masks, stage).items():
                    each[metric][i, d] = [by_split[s] for s in splits]
        return mean_and_each("random", each)
