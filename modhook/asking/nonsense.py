"""A function that nobody learned: the same inputs, every class called another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.asking.batches import Items, Store, Whole
from modhook.network.containers import items_of

LABELS = ("labels", "label", "targets", "target", "y")
"""Where a mapping is looked through for labels, in this order."""
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def classes(*stores: Store) -> Tensor | None:
    """Return the classes (C,) of batches that have integer labels, sorted; None if there are not two of them.

    Labels are the second of a pair (inputs, labels), or what a mapping has under one of `LABELS`.

    Negative labels, such as the -100 that losses pass over, are no classes.
    """
    batches = [batch for store in stores for batch in _batches(store)]
    found = [labels for batch in batches if (labels := _labels(batch)) is not None]
    if len(found) < len(batches):
        return None
    known = torch.from_numpy(np.unique(torch.cat([labels.flatten().long().cpu() for labels in found]).numpy()))
    known = known[known >= 0]
    return known if len(known) > 1 else None


def relabelled(batch: Any, known: Tensor, seed: int) -> Any:
    """Return a batch with its classes permuted: each of them gets the name of another.

    Args:
        batch: one with labels.
        known: the classes (C,), sorted.
        seed: of the permutation, a random cycle through all classes.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(known), generator=generator, device="cpu")
    moved = known.clone()
    moved[order] = known[order.roll(-1)]
    labels = _labels(batch)
    assert labels is not None
    there, new = known.to(labels.device), moved.to(labels.device)
    place = torch.searchsorted(there, labels.long().clamp(min=0)).clamp(max=len(known) - 1)
    changed = torch.where(there[place] == labels, new[place].to(labels.dtype), labels)
    parts = items_of(batch)
    assert parts is not None
    return parts.close([changed if child is labels else child for child in parts.children])


def _batches(store: Store) -> list[Any]:
    if isinstance(store, Items):
        return [store.take(torch.arange(len(store), device="cpu"))]
    assert isinstance(store, Whole)
    return store.batches


def _place(batch: Any) -> Any:
    """Return where a batch has its labels: 1 in a pair (inputs, labels), a key in a mapping; None if nowhere."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return 1
    if isinstance(batch, Mapping):
        return next((key for key in LABELS if key in batch), None)
    return None


def _labels(batch: Any) -> Tensor | None:
    """Return the integer labels (B, ...) of a batch; None if it has none."""
    place = _place(batch)
    labels = None if place is None else batch[place]
    return labels if isinstance(labels, Tensor) and labels.dim() and labels.dtype in _INTEGERS else None
