"""Cutting a batch into K equal, consecutive groups of items (reference, section 1: group k runs with sample k)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from modhook.errors import UserError
from modhook.stacked import Shared


def batch_size(batch: Any) -> int:
    """Return the number of items. Raises `UserError` if the tensors of the batch disagree, or there is none."""
    sizes = {t.shape[0] for t in _tensors(batch) if t.dim()}
    if not sizes:
        raise UserError("a batch must hold at least one tensor with a leading item dimension; this one holds none.")
    if len(sizes) > 1:
        raise UserError(
            f"the tensors of a batch must have the same number of items, but have {', '.join(map(str, sorted(sizes)))}; "
            "wrap tensors without an item dimension in modhook.shared."
        )
    return int(sizes.pop())


def cut(batch: Any, samples: int) -> Any:
    """Return the batch with every tensor (B, ...) as (K, B/K, ...); what is no tensor, and shared tensors, unchanged."""

    def one(tensor: Tensor) -> Any:
        if not tensor.dim():
            return Shared(tensor)
        return tensor.reshape(samples, tensor.shape[0] // samples, *tensor.shape[1:])  # (K, B/K, ...)

    return _map(batch, one)


def part(groups: Any, start: int, stop: int) -> Any:
    """Return groups `start` to `stop` of a cut batch."""
    return _map(groups, lambda tensor: tensor[start:stop])


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


def _map(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return type(tree)((k, _map(v, function)) for k, v in tree.items())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map(v, function) for v in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_map(v, function) for v in tree)
    return tree
