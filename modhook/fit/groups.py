"""Cutting a batch into K equal, consecutive groups of items (reference, section 1: group k runs with sample k).

A batch is made of tensors (B, ...) in lists, tuples, mappings, their subclasses, and nodes that torch's pytree knows. A
dataclass belongs to it if its tensors have the batch's B items; any other one, and every other object, reaches each group
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from modhook.errors import UserError
from modhook.network.containers import ATOMS, fields_of, items_of
from modhook.network.owned import apart, owned
from modhook.stacked import Kept, Shared
from modhook.stacked.trees import flatten
from modhook.values.arguments import shown


def batch_size(batch: Any) -> int:
    """Return the number of items. Raises `UserError` if the tensors of the batch disagree, or there is none."""
    plain: set[int] = set()
    inside: set[int] = set()
    _sizes(batch, plain, inside)
    sizes = plain or inside
    if not sizes:
        raise UserError(
            "a batch must hold at least one tensor with a leading item dimension, in dicts, tuples, lists or dataclasses; "
            f"this one, {shown(batch)}, holds none{_arrays(batch)}."
        )
    if len(sizes) > 1 and _packed(batch):
        raise UserError(
            "a PackedSequence cannot be cut into one group of items per mask sample; give padded sequences and their lengths, and pack "
            "them in the network or in the loss."
        )
    if len(sizes) > 1:
        raise UserError(
            f"the tensors of a batch must have the same number of items, but have {', '.join(map(str, sorted(sizes)))}; "
            "wrap tensors without an item dimension in modhook.shared."
        )
    return int(sizes.pop())


def cut(batch: Any, samples: int) -> Any:
    """Return the batch with every tensor (B, ...) as (K, B/K, ...), up to K - 1 items at its end left out.

    What is no tensor, and shared tensors, are as they were; what is no container is marked as `Kept`.
    """
    items = batch_size(batch)
    size = items // samples

    def one(tensor: Tensor) -> Any:
        if not tensor.dim():
            return Shared(apart(tensor))
        if tensor.layout is not torch.strided or tensor.is_nested:
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            raise UserError(
                f"a batch holds a {kind} tensor, which cannot be cut into groups of items; give a dense one (.to_dense(), "
                ".to_padded_tensor(0)), or wrap it in modhook.shared if each group is to see all of it."
            )
        # Autograd refuses tensors of inference mode; a target that the network itself computed leads into its weights.
        whole = tensor.clone() if tensor.is_inference() else apart(tensor)
        return whole[: samples * size].reshape(samples, size, *tensor.shape[1:])  # (K, B/K, ...)

    return _map(batch, one, items)


def part(groups: Any, start: int, stop: int) -> Any:
    """Return groups `start` to `stop` of a cut batch."""
    return _map(groups, lambda tensor: tensor[start:stop], None)


def group(groups: Any, k: int) -> Any:
    """Return group k of a cut batch as a batch of its own, in which what each group sees whole is marked as before."""
    return _map(groups, lambda tensor: tensor[k], None)


def one_group(groups: Any) -> Any:
    """Return the first group of a cut batch, as the loss gets it."""
    tree = flatten(groups)
    return tree.rebuild([leaf.tensor if leaf.shared else leaf.tensor[0] for leaf in tree.leaves])


def in_one(groups: Any) -> Any:
    """Return a cut batch in one piece, as the loss would get it: (K, B/K, ...) as (B, ...)."""
    tree = flatten(groups)
    return tree.rebuild([leaf.tensor if leaf.shared else leaf.tensor.flatten(0, 1) for leaf in tree.leaves])


def plainly(loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Return a loss of whole batches as they come, that gets them as it gets a group: shared tensors are tensors there."""
    return lambda net, batch: loss(net, one_group(cut(owned(batch), 1)))


def _packed(batch: Any) -> bool:
    """Return whether a batch has packed sequences in its lists, tuples and mappings."""
    if isinstance(batch, PackedSequence):
        return True
    children = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else []
    return any(_packed(child) for child in children)


def _arrays(batch: Any) -> str:
    """Return a hint for a batch of numbers that are in no tensor: what a tokenizer, or a data set, gives unless asked for tensors."""
    children = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    if not any(isinstance(child, np.ndarray | list | tuple) for child in children):
        return ""
    return " but arrays or lists (ask a tokenizer for return_tensors='pt', a data set for .with_format('torch'))"


def _sizes(tree: Any, plain: set[int], inside: set[int]) -> None:
    """Collect the leading sizes of all tensors; those within dataclasses go into `inside`."""
    if isinstance(tree, Tensor):
        if tree.dim():
            plain.add(tree.shape[0])
    elif isinstance(tree, Shared | Kept):
        return
    elif (parts := items_of(tree)) is not None:
        for child in parts.children:
            _sizes(child, plain, inside)
    elif (parts := fields_of(tree)) is not None:
        for child in parts.children:
            _sizes(child, inside, inside)


def _map(tree: Any, function: Callable[[Tensor], Any], items: int | None) -> Any:
    """Return the batch with `function` of every tensor; a batch of `items` items is looked at, a cut one (None) has marks."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, (*ATOMS, Shared, Kept)):
        return tree
    parts = items_of(tree)
    if parts is None:
        parts = fields_of(tree)
        if parts is None or not (items is None or _belongs(tree, items)):
            return Kept(tree)
    new = [_map(child, function, items) for child in parts.children]
    return tree if all(n is c for n, c in zip(new, parts.children, strict=True)) else parts.close(new)


def _belongs(tree: Any, items: int) -> bool:
    """Return whether a dataclass is a part of the batch. Raises `UserError` if only some of its tensors are."""
    sizes: set[int] = set()
    _sizes(tree, sizes, sizes)
    if items in sizes and len(sizes) > 1:
        raise UserError(
            f"of the tensors in a {type(tree).__name__}, some have the batch's {items} items and others do not "
            f"({', '.join(map(str, sorted(sizes)))}); wrap those without items in modhook.shared, or the whole object "
            "if each group is to see all of it."
        )
    return items in sizes
