"""A function that nobody learned: the same inputs, every class called another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.asking.batches import Items, Store, Whole

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def classes(*stores: Store) -> Tensor | None:
    """Return the classes (C,) of batches that are pairs (inputs, integer labels), sorted; None if there are not two of them.

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
    """Return a pair (inputs, labels) with its classes permuted: each of them gets the name of another.

    Args:
        batch: the pair.
        known: the classes (C,), sorted.
        seed: of the permutation, a random cycle through all classes.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(known), generator=generator, device="cpu")
    moved = known.clone()
    moved[order] = known[order.roll(-1)]
    labels = batch[1]
    there, new = known.to(labels.device), moved.to(labels.device)
    place = torch.searchsorted(there, labels.long().clamp(min=0)).clamp(max=len(known) - 1)
    changed = torch.where(there[place] == labels, new[place].to(labels.dtype), labels)
    return type(batch)(batch[0], changed) if hasattr(batch, "_fields") else type(batch)((batch[0], changed))


def _batches(store: Store) -> list[Any]:
    if isinstance(store, Items):
        return [store.take(torch.arange(len(store)))]
    assert isinstance(store, Whole)
    return store.batches


def _labels(batch: Any) -> Tensor | None:
    """Return the labels of a pair (inputs, integer labels (B, ...)); None if it is none."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        return None
    labels = batch[1]
    return labels if isinstance(labels, Tensor) and labels.dim() and labels.dtype in _INTEGERS else None
