"""Batches that a network, loss or score may write into: everyone else's stay as they are.

In-place operations on the input (`x -= mean`, a first `nn.ReLU(inplace=True)`, `ids[ids == 1] = 2`) and `batch.pop("labels")` are common,
and a batch is looked at many times: by the canary, in a step, under every cut.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modhook.network.containers import ATOMS, fields_of, items_of
from modhook.network.shared import Shared


def owned(batch: Any) -> Any:
    """Return a batch with tensors, lists, tuples, mappings and dataclasses of its own; every other object is the same one.

    A tensor that is there twice is one tensor in the copy, too.
    """
    return _owned(batch, {})


def _owned(batch: Any, known: dict[int, Tensor]) -> Any:
    if isinstance(batch, Tensor):
        if id(batch) not in known:
            known[id(batch)] = batch.clone()
        return known[id(batch)]
    if isinstance(batch, ATOMS):
        return batch
    if isinstance(batch, Shared):
        return Shared(_owned(batch.value, known))
    parts = items_of(batch) or fields_of(batch)
    return batch if parts is None else parts.close([_owned(child, known) for child in parts.children])


def unshared(batch: Any) -> Any:
    """Return a batch in which what is marked as shared stands as itself, as a group of a cut batch gets it."""
    if isinstance(batch, Shared):
        return batch.value
    if isinstance(batch, (Tensor, *ATOMS)):
        return batch
    parts = items_of(batch) or fields_of(batch)
    if parts is None:
        return batch
    children = [unshared(child) for child in parts.children]
    return batch if all(new is old for new, old in zip(children, parts.children, strict=True)) else parts.close(children)


def handed(batch: Any) -> Any:
    """Return a batch as a loss or score of whole batches gets it: its own, and without marks of what is shared."""
    return unshared(owned(batch))


def apart(tensor: Tensor) -> Tensor:
    """Return a tensor that is the same without how it was computed: gradients end there, and still exist if it had one."""
    return tensor.detach().requires_grad_() if tensor.requires_grad else tensor
