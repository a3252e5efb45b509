"""Is a removed class lost, or outvoted? How much of it comes back when one constant is added to its logit.

A mask that never saw a class lowers the class' logit on all images, and the others then win; what tells its images from others may
still be there. Adding a constant to a logit is the correction for another share of a class (logit adjustment: Menon et al.,
"Long-tail learning via logit adjustment", ICLR 2021). It is chosen without labels: the class is predicted as often as under the
mask of the whole task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modhook import Analysis, Task, UserError, Variable
from modhook_plugins.analyses.class_removal import classes_of, largest, masked

if TYPE_CHECKING:
    from modhook import FinishedRun

_NUMBER = {"table": "number"}
_TOLD = {
    "added": "constant on the removed class' logit with which it is predicted as often as under the control's mask",
    "target_drop": "relative loss of the removed class' accuracy with it, against the control",
    "other_drop": "largest relative loss of another class' accuracy with it, against the control",
    "other_share": "largest other / target with it; NaN where the target loses nothing",
    "auc": "how often an image of the class has a larger margin (its logit minus the largest other) than one of another class",
    "control_auc": "the same under the control's mask",
}
Floats = NDArray[np.float64]


class LogitAdjustment(Analysis):
    """What a removed class and the others lose, once the class is predicted as often as under the control's mask.

    The task must be one for `class_removal`, and have `logits(net, batch)`, (B, C).
    """

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `logit_adjustment`. Raises `UserError` for a task without logits or such stages."""
        _check(task)
        return tuple(Variable(f"logit_adjustment/{name}", ("stage",), "float64", words, attrs=_NUMBER) for name, words in _TOLD.items())

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Choose each constant, and count what is right with it."""
        classes = classes_of(run.task, "logit_adjustment")
        found = {name: np.full(len(run.stages), np.nan) for name in _TOLD}
        whole, labels = _logits(run, "control")
        before = _right(whole.argmax(1), labels, len(classes))  # (C,)
        for i, stage in enumerate(run.stages):
            if stage not in classes:
                continue
            c = classes.index(stage)
            logits, labels = _logits(run, stage)
            found["auc"][i], found["control_auc"][i] = (_auc(margin(x, c), labels == c) for x in (logits, whole))
            added = constant(margin(logits, c), int((whole.argmax(1) == c).sum()))
            logits[:, c] += added
            with np.errstate(divide="ignore", invalid="ignore"):
                drop = 1 - _right(logits.argmax(1), labels, len(classes)) / before  # (C,)
            other = largest(np.delete(drop, c))
            found["added"][i], found["target_drop"][i], found["other_drop"][i] = added, drop[c], other
            if drop[c] > 0:
                found["other_share"][i] = max(other, 0.0) / drop[c]
        return {f"logit_adjustment/{name}": values for name, values in found.items()}


def margin(logits: Floats, c: int) -> Floats:
    """Return by how much the logit of class c exceeds the largest other, (N,)."""
    margins: Floats = logits[:, c] - np.delete(logits, c, axis=1).max(1)
    return margins


def constant(margins: Floats, count: int) -> float:
    """Return what makes `count` of the margins positive when it is added: halfway between two of them; all or none by as little."""
    ordered = np.sort(margins)[::-1]  # the largest first
    if count <= 0 or count >= len(ordered):
        edge = ordered[0] if count <= 0 else ordered[-1]
        return float(-edge + (-1e-6 if count <= 0 else 1e-6))
    return float(-(ordered[count - 1] + ordered[count]) / 2)


def _logits(run: FinishedRun, stage: str) -> tuple[Floats, NDArray[np.int64]]:
    """Return the logits (N, C) of the first split under a stage's mask, and the labels (N,)."""
    task: Any = run.task
    network = masked(run, run.masks[stage], stage)
    with torch.no_grad():
        found = [(task.logits(network, b).double().cpu(), b["label"].cpu()) for b in run.batches(task.splits[0])]
    logits, labels = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return logits, labels


def _right(predicted: NDArray[np.int64], labels: NDArray[np.int64], size: int) -> Floats:
    """Return each class' accuracy (C,); NaN without images."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: Floats = np.bincount(labels[predicted == labels], minlength=size) / np.bincount(labels, minlength=size)
    return shares


def _auc(values: Floats, positive: NDArray[np.bool_]) -> float:
    """Return how often a positive has the larger value; equal ones count half."""
    one, other = np.sort(values[positive]), np.sort(values[~positive])
    if not len(one) or not len(other):
        return float("nan")
    below, not_above = np.searchsorted(other, one, "left"), np.searchsorted(other, one, "right")
    return float((below + not_above).mean() / 2 / len(other))


def _check(task: Any) -> None:
    classes_of(task, "logit_adjustment")
    if not hasattr(task, "logits"):
        raise UserError("the analysis 'logit_adjustment' needs a task with `logits(net, batch)`, (B, C), such as cifar10.")
