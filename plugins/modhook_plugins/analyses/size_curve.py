"""Score against size: cuts through the ranking of each stage's logits, and what is left without them.

A mask is one cut, at the sampler's threshold; the curve says what the others would have scored, so that a threshold in the
wrong place can be told from a ranking that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import numpy as np
from annotated_types import Ge

from modhook import Analysis, Masks, Order, Task, UserError, Variable, areas

if TYPE_CHECKING:
    from modhook import FinishedRun


@attrs.frozen
class SizeCurveOptions:
    """Options of the size curve."""

    points: Annotated[int, Ge(3)] = 20
    """Sizes from one weight to all of them, evenly apart on a logarithmic scale."""
    metric: str | None = None
    """The task's metric that is measured; by default its first."""


class SizeCurve(Analysis):
    """The score of cuts of many sizes and of their complements, on every split, and the areas that are reported for such curves."""

    Options = SizeCurveOptions
    options: SizeCurveOptions

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare sizes, scores, the threshold's place and the areas."""
        metric, own = self._metric(task), ("stage", "split")
        drawn = ("stage", "split", "size_point")
        return (
            Variable(
                "size_curve/density", ("stage", "size_point"), "float64", "share of the learned weights that the cut keeps"
            ),
            Variable("size_curve/score", drawn, "float64", f"mean {metric} under the cut"),
            Variable("size_curve/complement", drawn, "float64", f"mean {metric} without the cut's weights"),
            Variable(
                "size_curve/threshold", ("stage",), "float64", "share of the learned weights that the stage's own mask keeps"
            ),
            Variable(
                "size_curve/cpr",
                own,
                "float64",
                "area under the score between that of no weight (0) and of all (1), over the share kept",
                attrs={"table": "number"},
            ),
            Variable(
                "size_curve/cmd",
                own,
                "float64",
                "area between that curve and 1",
                attrs={"table": "number"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Number the sizes."""
        return {"size_point": list(range(1, self.options.points + 1))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Measure every cut of every stage."""
        metric, splits, points = self._metric(run.task), run.task.splits, self.options.points
        shape = (len(run.stages), len(splits))
        density, threshold = np.full((shape[0], points), np.nan), np.full(shape[0], np.nan)
        score, rest = np.full((*shape, points), np.nan), np.full((*shape, points), np.nan)
        cpr, cmd = np.full(shape, np.nan), np.full(shape, np.nan)
        for i, stage in enumerate(run.stages):
            masks, logits = run.masks[stage], run.logits(stage)
            if not logits:
                continue  # all of its masks are copied
            order = Order(logits)
            fixed = {n: m for n, m in masks.items() if n not in logits}
            threshold[i] = sum(int(masks[n].sum()) for n in logits) / order.size

            def measured(
                cut: dict[str, Any], fixed: dict[str, Any] = fixed, stage: str = stage, own: Masks = masks
            ) -> list[float]:
                scores = run.score(own.like({**cut, **fixed}), stage)[metric]
                return [scores[split] for split in splits]

            sizes = order.sizes(points)
            for j, size in enumerate(sizes):
                cut = order.cut(size)
                density[i, j] = size / order.size
                score[i, :, j] = measured(cut)
                rest[i, :, j] = measured({n: ~m for n, m in cut.items()})
            nothing, whole = measured(order.cut(0)), score[i, :, len(sizes) - 1]
            for k in range(len(splits)):
                found = areas(density[i, : len(sizes)], score[i, k, : len(sizes)], nothing[k], float(whole[k]))
                cpr[i, k], cmd[i, k] = found["cpr"], found["cmd"]
        values = {"density": density, "score": score, "complement": rest, "threshold": threshold, "cpr": cpr, "cmd": cmd}
        return {f"size_curve/{name}": value for name, value in values.items()}

    def _metric(self, task: Task) -> str:
        metric = self.options.metric or task.metrics[0]
        if metric not in task.metrics:
            raise UserError(
                f"analyses.size_curve.metric is {metric!r}, but the task measures {', '.join(task.metrics)}."
            )
        return metric
