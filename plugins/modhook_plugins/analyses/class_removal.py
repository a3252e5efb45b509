"""Class removal (reference, section 6): what does a mask that never saw a class do to it, and to the others?

With C the row-normalised confusion matrix of a stage (rows: true class) and R the control's, the relative drop of class c
is `-(C - R)[c, c] / R[c, c]`; the absolute one, in points of accuracy, `-(C - R)[c, c]`. Where the other classes are compared
with the removed one, another class that gains counts as one that loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from modhook import Analysis, Masks, Task, UserError, Variable

if TYPE_CHECKING:
    from modhook import FinishedRun

_NUMBER = {"table": "number"}


class ClassRemoval(Analysis):
    """Confusion of every stage on the first split; drops of the removed class and of the others, against the control.

    The task must have `classes`, `predict`, and stages that are named after the class that they lack.
    """

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `class_removal`. Raises `UserError` for a task without such stages."""
        classes_of(task, "class_removal")
        square = ("stage", "true", "predicted")
        return (
            Variable(
                "class_removal/confusion", square, "float64", "share of the true class that is taken for the other"
            ),
            Variable("class_removal/difference", square, "float64", "confusion minus the control's"),
            Variable("class_removal/drop", ("stage", "true"), "float64", "relative loss of the class' accuracy"),
            Variable(
                "class_removal/target_drop",
                ("stage",),
                "float64",
                "relative loss of the removed class' accuracy",
                attrs=_NUMBER,
            ),
            Variable(
                "class_removal/other_drop",
                ("stage",),
                "float64",
                "largest relative loss of another class' accuracy",
                attrs=_NUMBER,
            ),
            Variable(
                "class_removal/other_share",
                ("stage",),
                "float64",
                "largest other / target: the largest relative loss of another class, at least 0, over the removed one's",
                attrs=_NUMBER,
            ),
            Variable(
                "class_removal/target_points",
                ("stage",),
                "float64",
                "accuracy that the removed class loses",
                attrs={"table": "percent"},
            ),
            Variable(
                "class_removal/other_points",
                ("stage",),
                "float64",
                "largest accuracy that another class loses, at least 0",
                attrs={"table": "percent"},
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label both axes of the confusion with the classes."""
        return {"true": classes_of(task, "class_removal"), "predicted": classes_of(task, "class_removal")}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every stage's confusion."""
        classes = classes_of(run.task, "class_removal")
        found = np.stack([confusion(run, run.masks[s], stage=s) for s in run.stages])  # (S, C, C)
        reference = np.diagonal(found[0])  # (C,)
        with np.errstate(divide="ignore", invalid="ignore"):
            drop = np.where(reference > 0, 1 - np.diagonal(found, axis1=1, axis2=2) / reference, np.nan)  # (S, C)
        lost = reference - np.diagonal(found, axis1=1, axis2=2)  # (S, C)
        target, other, target_points, other_points = (np.full(len(run.stages), np.nan) for _ in range(4))
        for i, stage in enumerate(run.stages):
            if stage in classes:
                c = classes.index(stage)
                target[i], other[i] = drop[i, c], largest(np.delete(drop[i], c))
                target_points[i], other_points[i] = lost[i, c], np.maximum(largest(np.delete(lost[i], c)), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(target > 0, np.maximum(other, 0) / target, np.nan)
        return {
            "class_removal/confusion": found,
            "class_removal/difference": found - found[0],
            "class_removal/drop": drop,
            "class_removal/target_drop": target,
            "class_removal/other_drop": other,
            "class_removal/other_share": share,
            "class_removal/target_points": target_points,
            "class_removal/other_points": other_points,
        }


def largest(values: np.ndarray[Any, Any]) -> float:
    """Return the largest number that is known; NaN without any."""
    return float("nan") if np.isnan(values).all() else float(np.nanmax(values))


def confusion(run: FinishedRun, masks: Masks | None, stage: str) -> np.ndarray[Any, Any]:
    """Return the row-normalised confusion matrix (C, C) of the first split; a class without images has NaN."""
    task: Any = run.task
    evaluated, size = masked(run, masks, stage), len(classes_of(task, "class_removal"))
    counts = np.zeros((size, size))
    with torch.no_grad():
        for batch in run.batches(task.splits[0]):
            pairs = batch["label"] * size + task.predict(evaluated, batch)  # (B,)
            counts += torch.bincount(pairs, minlength=size * size).view(size, size).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: np.ndarray[Any, Any] = counts / counts.sum(1, keepdims=True)
    return shares


def masked(run: FinishedRun, masks: Masks | None, stage: str) -> nn.Module:
    """Return a stage's network under masks, or without any."""
    network = run.network(stage)
    return network if masks is None else masks.materialize(network, run.off, seed=run.labels["seed"])


def classes_of(task: Any, analysis: str) -> list[str]:
    """Return the names of the classes. Raises `UserError` for a task that the analysis of this name is not for."""
    classes = list(getattr(task, "classes", ()))
    if not classes or not hasattr(task, "predict") or not set(classes) & {s.name for s in task.stages}:
        raise UserError(
            f"the analysis {analysis!r} needs a task with stages that each lack one class, such as cifar10."
        )
    if task.stages[0].name != "control":
        raise UserError(f"the analysis {analysis!r} compares with the control; set task.control = true.")
    return classes
