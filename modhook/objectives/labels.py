"""Objectives that compare the network with what the batch says: labels, an answer and its contrast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from modhook.errors import UserError
from modhook.objectives.reading import (
    LABELS,
    Outputs,
    Place,
    checked_outputs,
    checked_place,
    in_range,
    outputs_of,
    taken,
    whole,
)
from modhook.values.arguments import checked


@attrs.frozen
class CrossEntropy:
    """What `cross_entropy` returns."""

    outputs: Outputs | None
    labels: Place | None
    ignore_index: int

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """Return the loss of one group, a scalar."""
        place = self.labels if self.labels is not None else (LABELS if isinstance(batch, Mapping) else 1)
        labels = whole("labels", taken("labels", batch, place))  # (B, ...)
        logits = outputs_of(net, batch, self.outputs, (place,))  # (B, ..., C)
        if labels.shape != logits.shape[:-1]:
            raise UserError(
                f"labels have shape {tuple(labels.shape)}, but the logits {tuple(logits.shape)}, classes last, need "
                f"{tuple(logits.shape[:-1])}; move dimensions with outputs= or labels=."
            )
        flat, wanted = logits.flatten(0, -2), labels.flatten()  # (n, C), (n,)
        counts = wanted != self.ignore_index  # (n,)
        if not wanted.is_cuda:  # there it would wait for the device in every step, and torch itself refuses them
            some = torch.where(counts, wanted, 0)
            in_range(some, 0, flat.shape[1], f"labels must be classes from 0 to {flat.shape[1] - 1}, but there is")
        # A group may hold no label that counts: it asks nothing of its mask, where the mean would be NaN.
        total = F.cross_entropy(flat, wanted, ignore_index=self.ignore_index, reduction="sum")
        return total / counts.sum().clamp(min=1)


def cross_entropy(outputs: Outputs | None = None, labels: Place | None = None, *, ignore_index: int = -100) -> CrossEntropy:
    """Return the cross-entropy of labels: the mean over all positions that count of -log softmax(logits)[label].

    Args:
        outputs: `outputs(net, batch)`, the logits (B, ..., C), classes last. By default the network's answer to the batch: to a
            tensor itself, to the first of a tuple, or `net(**batch)` without the labels; what it returns may hold `logits`.
        labels: where the batch holds the classes, whole numbers (B, ...): a key, a position, or a function of the batch. By default
            `batch["labels"]` or `batch[1]`. Logits of a next token belong to labels that are one position later: shift one of them.
        ignore_index: the label of positions that do not count. A group in which none counts has the loss 0.

    Raises (when called):
        UserError: no labels or logits there, shapes that do not fit, labels that are no whole numbers or (on the CPU) no classes.
    """
    checked_outputs(outputs)
    if labels is not None:
        checked_place("labels", labels)
    return CrossEntropy(outputs, labels, checked("ignore_index", ignore_index, int))


@attrs.frozen
class LogitDifference:
    """What `logit_difference` returns."""

    answer: Place
    contrast: Place
    outputs: Outputs | None
    position: Place

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """Return the loss of one group, a scalar."""
        logits = outputs_of(net, batch, self.outputs, (self.answer, self.contrast, self.position))  # (B, C) or (B, T, C)
        if logits.dim() == 3:
            logits = self._at(logits, batch)  # (B, C)
        if logits.dim() != 2:
            raise UserError(
                f"logit_difference needs logits of shape (B, C) or (B, T, C), not {tuple(logits.shape)}; give outputs=."
            )
        answer, contrast = self._mean(logits, batch, "answer"), self._mean(logits, batch, "contrast")  # (B,)
        return (contrast - answer).mean()

    def _at(self, logits: Tensor, batch: Any) -> Tensor:
        if isinstance(self.position, int):
            if not -logits.shape[1] <= self.position < logits.shape[1]:
                raise UserError(f"the logits have {logits.shape[1]} positions, and none is {self.position}.")
            return logits[:, self.position]
        places = whole("position", taken("position", batch, self.position))  # (B,)
        if places.shape != logits.shape[:1]:
            raise UserError(f"position must be one number per item, ({len(logits)},), not shape {tuple(places.shape)}.")
        length = logits.shape[1]
        in_range(places, -length, length, f"the logits have {length} positions, and none is")
        there = torch.where(places < 0, places + length, places)  # counted from the end where negative
        return logits.gather(1, there[:, None, None].expand(-1, 1, logits.shape[2])).squeeze(1)

    def _mean(self, logits: Tensor, batch: Any, name: str) -> Tensor:
        classes = whole(name, taken(name, batch, getattr(self, name)))  # (B,) or (B, n)
        if classes.dim() not in (1, 2) or len(classes) != len(logits):
            raise UserError(
                f"{name} must be one class per item, ({len(logits)},), or several, ({len(logits)}, n), not shape "
                f"{tuple(classes.shape)}."
            )
        if not classes.is_cuda:  # there it would wait for the device in every step, and torch itself refuses them
            in_range(classes, 0, logits.shape[1], f"{name} must be a class from 0 to {logits.shape[1] - 1}, not")
        return logits.gather(1, classes.reshape(len(logits), -1)).mean(1)


def logit_difference(
    answer: Place, contrast: Place, outputs: Outputs | None = None, *, position: Place = -1
) -> LogitDifference:
    """Return the negative logit difference: the mean over items of logit[contrast] - logit[answer].

    The difference has no upper bound, so that masks never cease to gain by it: give `fit_masks` a size, `density=`.

    Args:
        answer, contrast: where the batch holds the class of each item's right and wrong answer, whole numbers (B,), or of several
            of each, (B, n), of which the mean logit counts: a key, a position in the batch, or a function of the batch.
        outputs: `outputs(net, batch)`, logits (B, C) or (B, T, C); by default as in `cross_entropy`.
        position: which of T positions counts: a number, of the end where negative, or where the batch holds one per item, (B,):
            a key or a function of the batch.

    Raises (when called):
        UserError: nothing at these places, shapes that do not fit, a position that is none of the T, or (on the CPU) such a class.
    """
    checked_outputs(outputs)
    for name, place in (("answer", answer), ("contrast", contrast), ("position", position)):
        checked_place(name, place)
    return LogitDifference(answer, contrast, outputs, position)
