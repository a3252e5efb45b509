"""Takes containers apart, and makes them again with other content: one code for batches, arguments and outputs."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from modhook.errors import StackError
from modhook.network.slots import Slots, slots_of

ATOMS = (
    *(str, bytes, int, float, complex, bool, type(None), np.generic, np.ndarray),
    *(torch.dtype, torch.device, torch.Generator, torch.Size, type),
)
"""What holds no tensor."""
OPAQUE = (nn.Module, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
"""What is never looked into."""


@attrs.frozen
class Parts:
    """A container taken apart: `close` makes one of the same kind, with other children under the same keys."""

    keys: Sequence[Any]
    children: Sequence[Any]
    close: Callable[[Sequence[Any]], Any]


def items_of(x: Any) -> Parts | None:
    """Take apart lists, tuples, named tuples, mappings, subclasses of these, and nodes that torch's pytree knows."""
    kind = type(x)
    if isinstance(x, (*ATOMS, *OPAQUE)):
        return None
    if kind in (list, tuple):
        return Parts(range(len(x)), list(x), kind)
    if kind in (dict, collections.OrderedDict):
        keys = list(x)
        return Parts(keys, list(x.values()), lambda new: kind(zip(keys, new, strict=True)))
    if kind in pytree.SUPPORTED_NODES:
        node = pytree.SUPPORTED_NODES[kind]
        children, context = node.flatten_fn(x)
        return Parts(range(len(children)), children, lambda new: node.unflatten_fn(new, context))
    if isinstance(x, Mapping):
        keys = list(x)
        return Parts(keys, [x[k] for k in keys], lambda new: _mapping(x, dict(zip(keys, new, strict=True))))
    if isinstance(x, list | tuple):
        return Parts(getattr(x, "_fields", range(len(x))), list(x), lambda new: _sequence(x, new))
    return None


def fields_of(x: Any) -> Parts | None:
    """Take apart a dataclass."""
    if not dataclasses.is_dataclass(x) or isinstance(x, type):
        return None
    return _attributes(x, [f.name for f in dataclasses.fields(x) if hasattr(x, f.name)])


def attributes_of(x: Any) -> Parts | None:
    """Take apart attrs classes and plain objects, those with `__slots__` too."""
    if isinstance(x, (*ATOMS, *OPAQUE, set, frozenset)):
        return None
    if attrs.has(type(x)):
        return _attributes(x, [a.name for a in attrs.fields(type(x)) if hasattr(x, a.name)])
    if callable(x) or isinstance(x, os.PathLike):
        return None
    if not slots_of(type(x)):
        return _attributes(x, list(vars(x))) if hasattr(x, "__dict__") else None
    own = Slots(x)
    return Parts(list(own), list(own.values()), lambda new: _filled(x, dict(zip(own, new, strict=True))))


def _attributes(x: Any, names: Sequence[str]) -> Parts:
    def close(children: Sequence[Any]) -> Any:
        new = _filled(x, {})
        for name, found in vars(type(x)).items():
            if isinstance(found, functools.cached_property):  # computed from the old content
                getattr(new, "__dict__", {}).pop(name, None)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(new, name, child)  # frozen classes too
        return new

    return Parts(names, [getattr(x, name) for name in names], close)


def _filled(x: Any, attributes: Mapping[str, Any]) -> Any:
    """Return an object like `x` with other values in some attributes, whatever its class says about copies and writing."""
    new = x
    with contextlib.suppress(Exception):  # a class that forbids writing forbids its copies to be filled
        new = copy.copy(x)
    if new is x:
        try:
            new = object.__new__(type(x))
            Slots(new).update(Slots(x))
        except Exception:
            raise _refused(x) from None
    Slots(new).update(attributes)
    return new


def _mapping(x: Mapping[Any, Any], content: dict[Any, Any]) -> Any:
    """Return a mapping like `x` with other values; `x` itself is never written."""
    for make in (_copied, lambda x, content: type(x)(content), lambda x, content: type(x)(**content)):
        with contextlib.suppress(Exception):  # its constructor may want something else
            new = make(x, content)
            if type(new) is type(x) and new is not x and all(new[key] is value for key, value in content.items()):
                return new
    raise _refused(x)


def _copied(x: Mapping[Any, Any], content: dict[Any, Any]) -> Any:
    new: Any = copy.copy(x)
    if new is x or not isinstance(new, MutableMapping):
        raise TypeError
    if not isinstance(x, dict | collections.UserDict):
        for name, value in vars(new).items():
            if isinstance(value, dict):  # where it keeps its items: a copy shares them
                new.__dict__[name] = copy.copy(value)
    before = dict(x)
    for key, value in content.items():
        new[key] = value
    if any(x[key] is not value for key, value in before.items()):
        x.update(before)  # type: ignore[attr-defined]
        raise TypeError
    _follow(new, before.values(), content.values())
    return new


def _follow(new: Any, before: Iterable[Any], after: Iterable[Any]) -> None:
    """Let attributes of a container that hold its items, as those of `ModelOutput` do, hold the new ones."""
    changed = {id(old): (old, item) for old, item in zip(before, after, strict=True) if isinstance(old, torch.Tensor)}
    attributes = getattr(new, "__dict__", {})
    for name, value in list(attributes.items()):
        if id(value) in changed:
            attributes[name] = changed[id(value)][1]


def _sequence(x: Any, children: Sequence[Any]) -> Any:
    """Return a list or tuple like `x`, of its own class, with other items."""
    if isinstance(x, list):
        new = copy.copy(x)
        if new is not x:
            new[:] = children
            _follow(new, x, children)
            return new
        raise _refused(x)
    for make in _tuples(type(x)):
        with contextlib.suppress(Exception):  # its constructor may want something else
            made = make(children)
            if type(made) is type(x) and all(a is b for a, b in zip(made, children, strict=True)):
                if hasattr(made, "__dict__"):
                    made.__dict__.update(vars(x))
                    _follow(made, x, children)
                return made
    raise _refused(x)


def _tuples(kind: Any) -> Iterator[Callable[[Sequence[Any]], Any]]:
    if hasattr(kind, "_make"):
        yield kind._make
    yield lambda children: tuple.__new__(kind, children)
    yield kind


def _refused(x: Any) -> StackError:
    return StackError(
        f"a {type(x).__name__} cannot be made again with other tensors in it; give a dict, a tuple or a dataclass instead."
    )
