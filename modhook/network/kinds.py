"""What can change in place although it is no tensor: containers of any class, arrays of objects, generators of random numbers."""

from __future__ import annotations

import array
import collections
import contextlib
import functools
import operator
import random
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modhook.network.slots import Slots, slots_of

ATOMS = (str, bytes, int, float, complex, bool, type(None))
EXACT = frozenset([dict, collections.OrderedDict, collections.defaultdict, list, set, collections.deque])
"""Containers that need no care: their own methods do what their names say."""
_OPAQUE = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_LEFT_ALONE = ("torch", "builtins", "threading", "_thread")
_BASES: tuple[Any, ...] = (collections.OrderedDict, dict, list, set, collections.deque)


class State:
    """Something that changes in place: `take()` is what it is now, and `put_back(taken)` makes it that again."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def take(self) -> Any:
        """Return what it is now."""
        raise NotImplementedError

    def put_back(self, taken: Any) -> None:
        """Make it what it was."""
        raise NotImplementedError

    def same(self, taken: Any) -> bool:
        """Return whether it still is what it was."""
        now = self.take()
        return same_items(now, taken) if isinstance(now, list | dict) else bool(now == taken)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield what it holds, by key or number."""
        return iter(())

    def set(self, key: Any, value: Any) -> None:
        """Put something else in the place of what `items()` has under this key."""


class Items(State):
    """The items of a subclass of dict, list, set or deque, such as a Counter, past the methods of its own."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._base = next(base for base in _BASES if isinstance(owner, base))

    def take(self) -> Any:
        """Return a copy of what it holds, or its state."""
        if isinstance(self.owner, dict):
            return dict(self._base.items(self.owner))
        return list(self._base.__iter__(self.owner))

    def put_back(self, taken: Any) -> None:
        """Write it back, where it differs."""
        if same_items(self.take(), taken):
            return
        base, owner = self._base, self.owner
        base.clear(owner)
        if isinstance(owner, dict):
            for key, value in taken.items():
                base.__setitem__(owner, key, value)
        else:
            (base.update if isinstance(owner, set) else base.extend)(owner, taken)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield what it holds, by key or number."""
        taken = self.take()
        return iter(taken.items() if isinstance(taken, dict) else enumerate(taken))

    def set(self, key: Any, value: Any) -> None:
        """Put something else in this place."""
        if not isinstance(self.owner, set):
            self._base.__setitem__(self.owner, key, value)


class Numbers(State):
    """The content of a bytearray or an array.array."""

    def take(self) -> Any:
        """Return a copy of what it holds, or its state."""
        return self.owner[:]

    def put_back(self, taken: Any) -> None:
        """Write it back, where it differs."""
        if self.owner != taken:
            self.owner[:] = taken


class Objects(State):
    """The objects in a numpy array of objects."""

    def take(self) -> Any:
        """Return a copy of what it holds, or its state."""
        return list(self.owner.flat)

    def put_back(self, taken: Any) -> None:
        """Write it back, where it differs."""
        if self.owner.flags.writeable and not same_items(self.take(), taken):
            for i, value in enumerate(taken):
                self.set(i, value)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield what it holds, by key or number."""
        return enumerate(self.owner.flat)

    def set(self, key: Any, value: Any) -> None:
        """Put something else in this place."""
        cell = np.empty(1, object)
        cell[0] = value
        self.owner.flat[key : key + 1] = cell  # so that a list stays one object


class Drawing(State):
    """Where a generator of random numbers stands: one of torch, numpy or Python that is not the process's own."""

    def take(self) -> Any:
        """Return a copy of what it holds, or its state."""
        if isinstance(self.owner, torch.Generator):
            return self.owner.get_state()
        if isinstance(self.owner, random.Random):
            return self.owner.getstate()
        return self._numpy().state

    def put_back(self, taken: Any) -> None:
        """Write it back, where it differs."""
        if isinstance(self.owner, torch.Generator):
            self.owner.set_state(taken)
        elif isinstance(self.owner, random.Random):
            self.owner.setstate(taken)
        else:
            self._numpy().state = taken

    def same(self, taken: Any) -> bool:
        """Return whether nothing was drawn since, or another generator would draw the same."""
        return same_state(self.take(), taken)

    def _numpy(self) -> Any:
        if isinstance(self.owner, np.random.RandomState):
            return self.owner._bit_generator
        return getattr(self.owner, "bit_generator", self.owner)


def same_state(one: Any, other: Any) -> bool:
    """Return whether two states of generators of random numbers are one: tensors, arrays and numbers, also in dicts and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_state, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(np.all(one == other))


_STATES: tuple[tuple[type[State], tuple[type, ...]], ...] = (
    (Items, _BASES),
    (Numbers, (bytearray, array.array)),
    (Drawing, (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)),
)
_NONE, _DICT, _SLOTS = range(3)


def contents(value: Any) -> tuple[Any, ...]:
    """Return what of a value can change in place: the container itself, a `State`, and its attributes, a dict or `Slots`."""
    kind: Any = type(value)
    if kind in EXACT:
        return (value,)
    state, attributes = _how(kind)
    found: tuple[Any, ...] = ()
    if state is not None and not (state is Drawing and _belongs_to_the_process(value)):
        found = (state(value),)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        found = (Objects(value),)
    if attributes == _SLOTS:
        return (*found, Slots(value))
    own = getattr(value, "__dict__", None) if attributes == _DICT else None
    return (*found, own) if type(own) is dict else found


@functools.lru_cache(maxsize=4096)
def _how(kind: type) -> tuple[type[State] | None, int]:
    """Return how values of a type change: the `State` of their content, and where their attributes stand."""
    if issubclass(kind, (Tensor, *ATOMS, *_OPAQUE)):
        return None, _NONE
    if issubclass(kind, nn.Module):
        return None, _DICT
    state = next((state for state, kinds in _STATES if issubclass(kind, kinds)), None)
    if issubclass(kind, random.SystemRandom):  # has no state
        state = None
    if kind.__module__ in _LEFT_ALONE:
        return state, _NONE
    return state, _SLOTS if slots_of(kind) else _DICT


def _belongs_to_the_process(generator: Any) -> bool:
    """Return whether a generator is the one that `torch.rand`, `numpy.random.rand` or `random.random` draw from."""
    shared = [
        torch.default_generator,
        getattr(random.random, "__self__", None),
        getattr(np.random.rand, "__self__", None),
    ]
    return any(generator is one for one in (*shared, *torch.cuda.default_generators))


def same_items(now: Any, before: Any) -> bool:
    """Return whether two dicts or sequences hold the same objects in the same order."""
    if len(now) != len(before) or not all(map(operator.is_, now, before)):
        return False
    return not isinstance(now, Mapping) or all(map(operator.is_, now.values(), before.values()))


def memory_in(array: Any) -> Tensor | None:
    """Return the memory of a numpy array as bytes, (*shape, width); None where forward can write none: objects, files, read-only."""
    if isinstance(array, np.memmap) or array.dtype.hasobject or not array.flags.writeable:
        return None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # an array that torch cannot look at
        plain = array.view(np.ndarray)
        forward = plain[(*(slice(None, None, -1 if stride < 0 else 1) for stride in plain.strides), ...)]
        return torch.from_numpy(forward[..., None].view(np.uint8))
    return None
