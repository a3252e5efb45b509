"""Takes the tensors out of nested arguments and outputs, and puts others in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from modhook.network.containers import ATOMS, OPAQUE, attributes_of, fields_of, items_of
from modhook.network.shared import Kept, Shared
from modhook.values.numbers import is_truth


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
    """Find every tensor in tuples, lists, mappings, dataclasses, registered pytree nodes and plain objects.

    Everything that holds no tensor, or gets the same tensors back, is kept as it is, the same object.
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
    if isinstance(x, Kept):
        kept = x.value
        text.append(f"{type(kept).__qualname__};")
        return lambda _: kept
    if isinstance(x, ATOMS):
        # Numbers are left out: they are often lengths, and a new length needs no new check.
        flag = bool(x) if is_truth(x) else x
        text.append(f"{flag!r};" if isinstance(flag, (bool, str, type(None))) else f"{type(x).__name__};")
        return None
    parts = None
    if not isinstance(x, OPAQUE) and id(x) not in inside:
        parts = items_of(x) or fields_of(x) or attributes_of(x)
    if parts is None:
        text.append(f"{type(x).__qualname__};")
        return None
    keys, children = parts.keys, parts.children
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
        new = [c if b is None else b(tensors) for b, c in zip(builds, children, strict=True)]
        return x if all(n is c for n, c in zip(new, children, strict=True)) else parts.close(new)

    return rebuild
