"""Takes the tensors out of nested arguments and outputs, and puts others in their place."""

from __future__ import annotations

import collections
import copy
import dataclasses
import types
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modhook.stacked.tensors import Shared

_ATOMS = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Generator, type)
_OPAQUE = (nn.Module, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)


@attrs.frozen
class Leaf:
    """One tensor of a tree."""

    tensor: Tensor
    shared: bool
    path: str


@attrs.frozen
class Tree:
    """A tree without its tensors: `rebuild(tensors)` is the tree with these tensors in it."""

    leaves: tuple[Leaf, ...]
    structure: str
    """The containers, keys, flags and strings; equal for trees that differ only in tensors and numbers."""
    _build: Callable[[Sequence[Tensor]], Any]

    def kind(self) -> tuple[Any, ...]:
        """Return what is equal for trees that differ only in sizes, numbers and the values of tensors."""
        tensors = tuple((leaf.tensor.dtype, leaf.tensor.device, leaf.tensor.dim(), leaf.shared) for leaf in self.leaves)
        return self.structure, tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> Tree:
        """Return the tree with other tensors in the same places."""
        leaves = tuple(attrs.evolve(leaf, tensor=t) for leaf, t in zip(self.leaves, tensors, strict=True))
        return attrs.evolve(self, leaves=leaves)

    def rebuild(self, tensors: Sequence[Tensor]) -> Any:
        """Return the tree with `tensors`, one per leaf, in the places of the leaves; `shared` marks are gone."""
        if len(tensors) != len(self.leaves):
            raise ValueError(f"{len(tensors)} tensors for a tree of {len(self.leaves)}")
        return self._build(tensors)


def flatten(tree: Any) -> Tree:
    """Find every tensor in tuples, lists, dicts, dataclasses, registered pytree nodes and plain objects.

    Everything that holds no tensor is kept as it is, the same object.
    """
    leaves: list[Leaf] = []
    structure: list[str] = []
    build = _walk(tree, leaves, structure, shared=False, path="", inside=set())
    return Tree(tuple(leaves), "".join(structure), build or (lambda _: tree))


Build = Callable[[Sequence[Tensor]], Any]


def _walk(x: Any, leaves: list[Leaf], text: list[str], *, shared: bool, path: str, inside: set[int]) -> Build | None:
    """Return how to rebuild `x` from the tensors, or None where it holds none."""
    if isinstance(x, Tensor):
        index = len(leaves)
        leaves.append(Leaf(x, shared, path or "argument"))
        text.append("Tensor;")
        return lambda tensors: tensors[index]
    if isinstance(x, Shared):
        build = _walk(x.value, leaves, text, shared=True, path=path, inside=inside)
        value = x.value
        return build or (lambda _: value)
    if isinstance(x, _ATOMS):
        # Numbers are left out: they are often lengths, and a new length needs no new check.
        text.append(f"{x!r};" if isinstance(x, (bool, str, type(None))) else f"{type(x).__name__};")
        return None
    if isinstance(x, _OPAQUE) or id(x) in inside:
        text.append(f"{type(x).__qualname__};")
        return None
    parts = _open(x)
    if parts is None:
        text.append(f"{type(x).__qualname__};")
        return None
    keys, children, close = parts
    text.append(f"{type(x).__qualname__}(")
    builds = []
    for key, child in zip(keys, children, strict=True):
        text.append(f"{key}=")
        at = f"{path}[{key!r}]" if path else str(key)
        builds.append(_walk(child, leaves, text, shared=shared, path=at, inside=inside | {id(x)}))
    text.append(")")
    if not any(builds):
        return None

    def rebuild(tensors: Sequence[Tensor]) -> Any:
        return close([c if b is None else b(tensors) for b, c in zip(builds, children, strict=True)])

    return rebuild


def _open(x: Any) -> tuple[Sequence[Any], Sequence[Any], Callable[[list[Any]], Any]] | None:
    """Return (keys, children, how to close again) of a container; None for anything else."""
    kind = type(x)
    if kind in (list, tuple):
        return range(len(x)), list(x), kind
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return x._fields, list(x), lambda children: kind(*children)
    if kind in (dict, collections.OrderedDict):
        keys = list(x)
        return keys, list(x.values()), lambda children: kind(zip(keys, children, strict=True))
    if kind in pytree.SUPPORTED_NODES:
        node = pytree.SUPPORTED_NODES[kind]
        children, context = node.flatten_fn(x)
        return range(len(children)), children, lambda new: node.unflatten_fn(new, context)
    if isinstance(x, dict):
        keys = list(x)
        return keys, list(x.values()), lambda children: _with_items(x, keys, children)
    if isinstance(x, (list, tuple, set, frozenset, type)):
        return None
    if dataclasses.is_dataclass(x):
        keys = [f.name for f in dataclasses.fields(x) if hasattr(x, f.name)]
        return keys, [getattr(x, k) for k in keys], lambda children: _with_attributes(x, keys, children)
    if attrs.has(kind):
        keys = [a.name for a in attrs.fields(kind) if hasattr(x, a.name)]
        return keys, [getattr(x, k) for k in keys], lambda children: _with_attributes(x, keys, children)
    if hasattr(x, "__dict__") and not callable(x):
        keys = list(vars(x))
        return keys, list(vars(x).values()), lambda children: _with_attributes(x, keys, children)
    return None


def _with_items(x: Any, keys: Sequence[Any], children: Sequence[Any]) -> Any:
    new = copy.copy(x)
    for key, child in zip(keys, children, strict=True):
        new[key] = child
    return new


def _with_attributes(x: Any, keys: Sequence[str], children: Sequence[Any]) -> Any:
    new = copy.copy(x)
    for key, child in zip(keys, children, strict=True):
        object.__setattr__(new, key, child)  # frozen classes too
    return new
