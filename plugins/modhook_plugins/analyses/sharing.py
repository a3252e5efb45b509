"""Overlap of masks (reference, sections 1 and 6): which weights do two functions share?

With m_i the mask of stage i:  IoU = |A & B| / |A | B|,  IoMin = |A & B| / min(|A|, |B|),
shared_i = |m_i & OR(others)| / |m_i| over the sub-function stages (control excluded),
remaining_i = |m_i & m_control| / |m_control|. A ratio whose denominator is 0 is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Masks, Task, Variable

if TYPE_CHECKING:
    from modhook.run import FinishedRun


_PAIR = ("stage", "other", "parameter")


class Sharing(Analysis):
    """Counts, IoU, IoMin, shared and remaining, per tensor and in total, for all pairs of stages."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `overlap`."""
        return (
            Variable(
                "overlap/kept",
                ("stage", "parameter"),
                "float64",
                "weights kept by the stage's mask in this tensor",
                units="weights",
            ),
            Variable("overlap/size", ("parameter",), "float64", "weights in this tensor", units="weights"),
            Variable(
                "overlap/intersection", _PAIR, "float64", "weights kept by both stages in this tensor", units="weights"
            ),
            Variable("overlap/iou", _PAIR, "float64", "|A & B| / |A | B| in this tensor"),
            Variable("overlap/iomin", _PAIR, "float64", "|A & B| / min(|A|, |B|) in this tensor"),
            Variable(
                "overlap/iou_total",
                ("stage", "other"),
                "float64",
                "|A & B| / |A | B| over all masked weights",
                attrs={"table": "number"},
            ),
            Variable(
                "overlap/iomin_total", ("stage", "other"), "float64", "|A & B| / min(|A|, |B|) over all masked weights"
            ),
            Variable(
                "overlap/shared",
                ("stage", "parameter"),
                "float64",
                "share of the stage's kept weights that another sub-function keeps too",
            ),
            Variable(
                "overlap/shared_total",
                ("stage",),
                "float64",
                "share of the stage's kept weights that another sub-function keeps too, over all masked weights",
                attrs={"table": "number"},
            ),
            Variable(
                "overlap/remaining",
                ("stage", "parameter"),
                "float64",
                "share of the control's weights that the stage keeps",
            ),
            Variable(
                "overlap/remaining_total",
                ("stage",),
                "float64",
                "share of the control's weights that the stage keeps, over all masked weights",
                attrs={"table": "number"},
            ),
            Variable(
                "overlap/density",
                ("stage",),
                "float64",
                "share of all masked weights that the stage keeps",
                attrs={"table": "number"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `other` with the stages."""
        return {"other": list(stages)}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every pair of stages."""
        order = [str(x) for x in run.cube.labels("overlap/kept")["parameter"]]
        where = {n: order.index(n) for n in run.masks[run.stages[0]]}
        stages, masks = run.stages, run.masks
        s, p = len(stages), len(order)

        def spread(counts: dict[str, int]) -> np.ndarray[Any, Any]:
            row = np.full(p, np.nan)  # (P,), NaN for tensors that this network does not have
            for name, count in counts.items():
                row[where[name]] = count
            return row

        kept = np.stack([spread(masks[a].kept(per_tensor=True)) for a in stages])  # (S, P)
        both = np.stack(
            [np.stack([spread((masks[a] & masks[b]).kept(per_tensor=True)) for b in stages]) for a in stages]
        )  # (S, S, P)
        left, right = kept[:, None], kept[None]  # (S, 1, P), (1, S, P)
        total, total_both = np.nansum(kept, -1), np.nansum(both, -1)  # (S,), (S, S)
        union = total[:, None] + total[None] - total_both  # (S, S)

        shared = np.full((s, p), np.nan)
        shared_total = np.full(s, np.nan)
        for i, stage in enumerate(stages[1:], 1):
            others = [masks[o] for o in stages[1:] if o != stage]
            if others:
                common = spread((masks[stage] & _union(others)).kept(per_tensor=True))
                shared[i] = _ratio(common, kept[i])
                shared_total[i] = _ratio(np.nansum(common), total[i])
        return {
            "overlap/kept": kept,
            "overlap/size": spread({n: m.numel() for n, m in masks[stages[0]].items()}),
            "overlap/intersection": both,
            "overlap/iou": _ratio(both, left + right - both),
            "overlap/iomin": _ratio(both, np.minimum(left, right)),
            "overlap/iou_total": _ratio(total_both, union),
            "overlap/iomin_total": _ratio(total_both, np.minimum(total[:, None], total[None])),
            "overlap/shared": shared,
            "overlap/shared_total": shared_total,
            "overlap/remaining": _ratio(both[:, 0], kept[0]),
            "overlap/remaining_total": _ratio(total_both[:, 0], total[0]),
            "overlap/density": total / masks[stages[0]].size,
        }


def _union(masks: Sequence[Masks]) -> Masks:
    return reduce(or_, masks)


def _ratio(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
