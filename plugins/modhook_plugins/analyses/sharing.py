"""Overlap of masks (reference, sections 1 and 6): which weights do two functions share, and how many by chance?

With m_i the mask of stage i:  IoU = |A & B| / |A | B|,  IoMin = |A & B| / min(|A|, |B|),
shared_i = |m_i & OR(others)| / |m_i| over the sub-function stages (control excluded),
remaining_i = |m_i & m_control| / |m_control|. A ratio whose denominator is 0 is NaN.

Dense masks overlap much whatever they say. So each measure has a `_chance`, its exact expectation for independent, uniformly
random masks that keep as many weights of each tensor as these do, and a `_ratio`, measured over chance. A mask is not
independent of itself: `_chance` and `_ratio` are NaN for a stage with itself. Where a task copies a tensor's mask from
stage to stage, a ratio above 1 says nothing but that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modhook import Analysis, Task, Variable, chance

if TYPE_CHECKING:
    from modhook import FinishedRun

Array = NDArray[np.float64]
Values = tuple[Array, Array]
"""Per tensor (..., P), and over all masked weights (...,)."""

_MEASURES = {
    "iou": (("stage", "other"), "|A & B| / |A | B|"),
    "iomin": (("stage", "other"), "|A & B| / min(|A|, |B|)"),
    "shared": (("stage",), "share of the stage's kept weights that another sub-function keeps too"),
    "remaining": (("stage",), "share of the control's weights that the stage keeps"),
}
_KINDS = {"": "", "_chance": "expected of random masks of these sizes: ", "_ratio": "measured over chance: "}
_TABLES = ("iou_total", "iou_chance_total", "iou_ratio_total", "shared_total", "shared_chance_total", "remaining_total")


class Sharing(Analysis):
    """Counts, IoU, IoMin, shared and remaining, per tensor and in total, for all pairs of stages; and what chance gives."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `overlap`."""
        found = [
            _counts("kept", ("stage", "parameter"), "weights kept by the stage's mask in this tensor"),
            _counts("size", ("parameter",), "weights in this tensor"),
            _counts("intersection", ("stage", "other", "parameter"), "weights kept by both stages in this tensor"),
            Variable(
                "overlap/density",
                ("stage",),
                "float64",
                "share of all masked weights that the stage keeps",
                attrs={"table": "number"},
            ),
        ]
        for measure, (dims, doc) in _MEASURES.items():
            for kind, before in _KINDS.items():
                for suffix, own, where in (("", ("parameter",), "in this tensor"), ("_total", (), "over all weights")):
                    name = f"{measure}{kind}{suffix}"
                    table = {"table": "number"} if name in _TABLES else {}
                    found.append(
                        Variable(f"overlap/{name}", (*dims, *own), "float64", f"{before}{doc}, {where}", attrs=table)
                    )
        return tuple(found)

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label `other` with the stages."""
        return {"other": list(stages)}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every pair of stages."""
        order = [str(x) for x in run.coordinates("overlap/kept")["parameter"]]
        masks = [run.masks[s] for s in run.stages]

        def spread(counts: dict[str, int]) -> Array:
            # (P,), NaN for tensors that this network does not have
            return np.array([counts.get(name, np.nan) for name in order], dtype=np.float64)

        size = spread({n: m.numel() for n, m in masks[0].items()})  # (P,)
        kept = np.stack([spread(m.kept(per_tensor=True)) for m in masks])  # (S, P)
        both = np.stack([np.stack([spread((a & b).kept(per_tensor=True)) for b in masks]) for a in masks])  # (S, S, P)
        functions = list(range(1 if run.task.control else 0, len(masks)))
        common = np.full(kept.shape, np.nan)  # (S, P): weights that another sub-function keeps too
        for i in functions:
            if others := [masks[o] for o in functions if o != i]:
                common[i] = spread((masks[i] & reduce(or_, others)).kept(per_tensor=True))
        remaining = both[:, 0] if run.task.control else np.full(kept.shape, np.nan)  # (S, P)

        measured = _measures(kept, both, common, remaining)
        expected = _measures(kept, *_linear(size, kept, functions, run.task.control))
        expected["iou"] = _iou(size, kept)
        found = {
            "overlap/kept": kept,
            "overlap/size": size,
            "overlap/intersection": both,
            "overlap/density": np.nansum(kept, -1) / masks[0].size,
        }
        for name in _MEASURES:
            for i, suffix in enumerate(("", "_total")):
                found[f"overlap/{name}{suffix}"] = measured[name][i]
                found[f"overlap/{name}_chance{suffix}"] = expected[name][i]
                found[f"overlap/{name}_ratio{suffix}"] = _ratio(measured[name][i], expected[name][i])
        return found


def _counts(name: str, dims: tuple[str, ...], doc: str) -> Variable:
    return Variable(f"overlap/{name}", dims, "float64", doc, units="weights")


def _measures(kept: Array, both: Array, common: Array, remaining: Array) -> dict[str, Values]:
    """Return every measure of counts: kept (S, P), shared by pairs (S, S, P), by any other and with the control (S, P)."""
    total = np.nansum(kept, -1)  # (S,)
    left, right = kept[:, None], kept[None]  # (S, 1, P), (1, S, P)
    total_left, total_right = total[:, None], total[None]  # (S, 1), (1, S)
    total_both = _sum(both)  # (S, S)
    return {
        "iou": (
            _ratio(both, left + right - both),
            _ratio(total_both, total_left + total_right - total_both),
        ),
        "iomin": (
            _ratio(both, np.minimum(left, right)),
            _ratio(total_both, np.minimum(total_left, total_right)),
        ),
        "shared": (_ratio(common, kept), _ratio(_sum(common), total)),
        "remaining": (_ratio(remaining, kept[0]), _ratio(_sum(remaining), total[0])),
    }


def _linear(size: Array, kept: Array, functions: Sequence[int], control: bool) -> tuple[Array, Array, Array]:
    """Return the expected counts of `_measures`: shared by pairs, by any other sub-function, with the control.

    A random mask that keeps b of N weights keeps a given one with probability b / N, whatever an independent mask does.
    """
    both = kept[:, None] * kept[None] / size  # (S, S, P)
    both[np.arange(len(kept)), np.arange(len(kept))] = np.nan
    common = np.full(kept.shape, np.nan)  # (S, P)
    for i in functions:
        if others := [o for o in functions if o != i]:
            common[i] = kept[i] * (1 - np.prod(1 - kept[others] / size, 0))
    return both, common, both[:, 0] if control else np.full(kept.shape, np.nan)


def _iou(size: Array, kept: Array) -> Values:
    """Return the expected IoU of every two different stages, per tensor (S, S, P) and over all weights (S, S)."""
    stages = len(kept)
    each, whole = np.full((stages, stages, len(size)), np.nan), np.full((stages, stages), np.nan)
    here = np.flatnonzero(np.isfinite(size))
    for i in range(stages):
        for j in range(i):
            sizes = [(int(size[p]), int(kept[i, p]), int(kept[j, p])) for p in here]
            laws = [chance.shared(*s) for s in sizes]
            each[i, j, here] = [law.iou(a, b) for law, (_, a, b) in zip(laws, sizes, strict=True)]
            whole[i, j] = chance.total(laws).iou(sum(a for _, a, _ in sizes), sum(b for _, _, b in sizes))
            each[j, i], whole[j, i] = each[i, j], whole[i, j]
    return each, whole


def _sum(counts: Array) -> Array:
    """Return the sum over tensors; NaN where no tensor has a count."""
    return np.where(np.isnan(counts).all(-1), np.nan, np.nansum(counts, -1))


def _ratio(part: Any, whole: Any) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
