"""A user's batches, gathered once: as items that are drawn anew, or, where batches differ in shape, as they are.

Batches of one shape are taken apart into their items, of which every step draws some; so are those of a task plugin. Batches
whose tensors have other shapes from batch to batch (padded to their longest item), or which carry something that belongs to
the batch as a whole, stay whole: every step draws one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from modhook.errors import ModhookError, UserError
from modhook.fit.groups import batch_size
from modhook.network.containers import ATOMS, Parts, fields_of, items_of
from modhook.noise.seeding import derive
from modhook.plugin.culprit import told
from modhook.stacked import Shared
from modhook.values.arguments import batches_of, single_items
from modhook.values.moving import moved
from modhook.values.randomness import seeded


class Store(Protocol):
    """Batches as a data set: `len` items (or whole batches), and any of them as a batch."""

    kind: str
    """The batches' structure, in words."""
    size: int
    """Items of a batch as the user made it."""
    fingerprint: str

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Any:
        """Return a batch of the items at these numbers (n,), on the device of `index`."""
        ...


@attrs.define(eq=False)
class Items:
    """Batches of one shape, taken apart: `leaves` are their tensors end to end, (N, ...) each."""

    template: Any
    leaves: list[Tensor]
    kind: str
    size: int
    fingerprint: str
    rest: str
    """What else every batch holds, as text."""
    _there: dict[torch.device, list[Tensor]] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.leaves[0])

    def take(self, index: Tensor) -> Any:
        """Return a batch of these items."""
        if index.device not in self._there:
            self._there[index.device] = [leaf.to(index.device) for leaf in self.leaves]
        chosen = iter([leaf[index] for leaf in self._there[index.device]])
        return _mapped(self.template, lambda tensor: next(chosen), index.device, self.size)

    def whole(self) -> Whole:
        """Return the items in batches that stay as they are."""
        count = len(self)
        parts = [torch.arange(i, min(i + self.size, count), device="cpu") for i in range(0, count, self.size)]
        return Whole([self.take(part) for part in parts], self.kind, self.size, self.fingerprint)


@attrs.define(eq=False)
class Whole:
    """Batches that stay as they are; an item is a batch, and of several the first is taken."""

    batches: list[Any]
    kind: str
    size: int
    fingerprint: str
    prints: tuple[str, ...] = ()
    """A hash of each batch as it was given."""

    def __len__(self) -> int:
        return len(self.batches)

    def take(self, index: Tensor) -> Any:
        """Return one batch."""
        batch = self.batches[int(index[0])]
        return _mapped(batch, lambda tensor: moved(tensor, index.device), index.device, batch_size(batch))

    def cut(self, what: str, samples: int) -> Whole:
        """Return the batches cut to a multiple of `samples`, without smaller ones. Raises `UserError` if none is left."""
        large = [batch_size(batch) >= samples for batch in self.batches]
        usable = [_trimmed(batch, samples) for batch in itertools.compress(self.batches, large)]
        if not usable:
            raise UserError(
                f"{what} have fewer items than there are mask samples ({samples}); make them larger, or give samples=1."
            )
        prints = tuple(itertools.compress(self.prints, large))
        return attrs.evolve(self, batches=usable, size=batch_size(usable[0]), prints=prints)


def gather(what: str, given: Any, seed: int, most: int, samples: int = 1) -> Store:
    """Return a user's batches as a data set.

    Args:
        what: names them in messages: "the batches of 'vowels'".
        given: an iterable of batches (a list, a DataLoader), or a callable that makes one, from a seed if it takes an argument.
            Everything random in it is drawn from `seed`, and afterwards as it was.
        seed: see `given`.
        most: how many batches are taken of an iterable whose length nobody knows.
        samples: batches that stay whole are cut to a multiple of it.

    Raises:
        UserError: no batch, batches that cannot be cut into items, batches of different structure.
    """
    with seeded(derive(seed, "ask", "batches")), _kept_generators(given):
        found = list(_read(what, given, seed, most))
    if not found:
        raise UserError(
            f"{what} are empty: there is no batch (an iterator can be gone through only once); give a list."
        )
    sizes = []
    for number, batch in enumerate(found, 1):
        try:
            sizes.append(batch_size(batch))
        except ModhookError as error:
            raise UserError(f"{what}, batch {number}: {error}") from None
    kinds = [_kind(batch) for batch in found]
    for number, kind in enumerate(kinds, 1):
        if kind != kinds[0]:
            raise UserError(
                f"{what} have different structures: batch 1 is {_cut(kinds[0])}, but batch {number} is {_cut(kind)}; give all of "
                "them the same."
            )
    found = [b for b, size in zip(found, sizes, strict=True) if size]
    if not found:
        raise UserError(f"{what} are empty: no batch has an item.")
    parts = [_leaves(batch) for batch in found]
    shapes = {tuple((leaf.dtype, leaf.shape[1:]) for leaf in leaves) for leaves, _ in parts}
    if len(shapes) == 1 and len({rest for _, rest in parts}) == 1 and not any(map(_entries_beside, found)):
        leaves = [torch.cat(columns) for columns in zip(*(leaves for leaves, _ in parts), strict=True)]
        print_ = _digest([*leaves, parts[0][1]])
        return Items(found[0], leaves, kinds[0], batch_size(found[0]), print_, parts[0][1])
    print_ = _digest(itertools.chain.from_iterable((*leaves, rest) for leaves, rest in parts))
    each = tuple(_digest([*leaves, rest]) for leaves, rest in parts)
    return Whole(found, kinds[0], batch_size(found[0]), print_, each).cut(what, samples)


def _read(what: str, given: Any, seed: int, most: int) -> Iterator[Any]:
    """Yield the batches: all of them where their number is known, else at most `most`."""
    if single_items(given):
        raise UserError(f"{what} are a data set of single items; give torch.utils.data.DataLoader(it, batch_size=...).")
    known = hasattr(given, "__len__")
    try:
        if callable(given) and not hasattr(given, "__iter__"):
            given, known = _called(given, seed), False
        batches_of(what, given)
        batches: Iterable[Any] = given
        yield from batches if known or hasattr(given, "__len__") else itertools.islice(batches, most)
    except ModhookError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be read: {told(error)}.") from error


def _called(make: Callable[..., Any], seed: int) -> Any:
    try:
        inspect.signature(make).bind(seed)
    except TypeError:
        return make()
    except ValueError:  # written in C: it says itself what it takes
        pass
    return make(seed)


@contextlib.contextmanager
def _kept_generators(given: Any) -> Iterator[None]:
    """A loader's own generators are afterwards as they were: the next call then draws the same items."""
    sampler = getattr(given, "sampler", None)
    inner = getattr(getattr(given, "batch_sampler", None), "sampler", None)
    found = {
        id(g): g for o in (given, sampler, inner) if isinstance(g := getattr(o, "generator", None), torch.Generator)
    }
    states = [(generator, generator.get_state()) for generator in found.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _parts(tree: Any) -> Parts | None:
    return items_of(tree) or fields_of(tree)


def _mapped(tree: Any, function: Callable[[Tensor], Tensor], device: torch.device, items: int) -> Any:
    """Return the batch with `function` of every tensor that has an item dimension; other tensors go to the device."""
    if isinstance(tree, Tensor):
        return function(tree) if tree.dim() and len(tree) == items else tree.to(device)
    if isinstance(tree, Shared):
        return tree
    parts = None if isinstance(tree, ATOMS) else _parts(tree)
    if parts is None:
        return tree
    new = [_mapped(child, function, device, items) for child in parts.children]
    return tree if all(n is c for n, c in zip(new, parts.children, strict=True)) else parts.close(new)


def _leaves(batch: Any) -> tuple[list[Tensor], str]:
    """Return the tensors that have an item dimension, and everything else of the batch as text."""
    items, leaves, words = batch_size(batch), list[Tensor](), list[str]()

    def walk(tree: Any, shared: bool = False) -> None:
        if isinstance(tree, Tensor) and not shared and tree.dim() and len(tree) == items:
            leaves.append(tree.detach().cpu())
            words.append("*")
        elif isinstance(tree, Tensor):
            words.append(_digest([tree.detach().cpu()]))
        elif isinstance(tree, np.ndarray):
            words.append(_digest([torch.from_numpy(tree)]) if tree.dtype.kind in "biuf" else repr(tree.tolist()))
        elif isinstance(tree, Shared):
            words.append("shared")
            walk(tree.value, True)
        elif isinstance(tree, ATOMS) or (parts := _parts(tree)) is None:
            words.append(re.sub(r" at 0x[0-9a-f]+", "", repr(tree)))
        else:
            words.append(type(tree).__qualname__)
            for key, child in zip(parts.keys, parts.children, strict=True):
                words.append(repr(key))
                walk(child, shared)

    walk(batch)
    return leaves, "\x1f".join(words)


def _entries_beside(batch: Any) -> bool:
    """Return whether a batch has a list or an array with one entry per item, which its tensors must not be drawn without."""
    items = batch_size(batch)

    def walk(tree: Any) -> bool:
        if isinstance(tree, np.ndarray):
            return bool(tree.ndim) and len(tree) == items
        parts = None if isinstance(tree, (*ATOMS, Shared)) else _parts(tree)
        if parts is None:
            return False
        return (isinstance(tree, list | tuple) and len(tree) == items and not tensors(tree)) or any(map(walk, parts.children))

    def tensors(tree: Any) -> bool:
        parts = None if isinstance(tree, (*ATOMS, Tensor)) else _parts(tree)
        return isinstance(tree, Tensor | Shared) or (parts is not None and any(map(tensors, parts.children)))

    return walk(batch)


def _kind(tree: Any) -> str:
    """Write a batch's structure: `tuple(Tensor, Tensor)`, `dict(inputs: Tensor, ...)`."""
    if isinstance(tree, Tensor):
        return "Tensor"
    parts = None if isinstance(tree, (*ATOMS, Shared)) else _parts(tree)
    if parts is None:
        return type(tree).__qualname__
    named = not isinstance(tree, list | tuple) or hasattr(tree, "_fields")
    inside = [
        f"{key}: {_kind(child)}" if named else _kind(child)
        for key, child in zip(parts.keys, parts.children, strict=True)
    ]
    return f"{type(tree).__qualname__}({', '.join(inside)})"


def _trimmed(batch: Any, multiple: int) -> Any:
    items = batch_size(batch)
    stop = items - items % multiple
    return _mapped(batch, lambda tensor: tensor.detach().cpu()[:stop], torch.device("cpu"), items)


def _digest(values: Iterable[Tensor | str]) -> str:
    """Return a hash of tensors, their types and shapes, and texts."""
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, str):
            found.update(f"{len(value)} {value};".encode("utf-8", "surrogatepass"))
            continue
        found.update(f"{value.dtype} {tuple(value.shape)};".encode())
        plain = value.to_dense() if value.layout != torch.strided else value
        if plain.numel():
            found.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _cut(text: str, longest: int = 100) -> str:
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def digest_of(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Return a hash of named tensors."""
    return _digest(itertools.chain.from_iterable((name, t.detach().cpu()) for name, t in tensors))
