"""Every tensor that a network holds: parameters, buffers, and what its modules keep in attributes, lists, dicts and objects."""

from __future__ import annotations

import collections
import types
from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from modhook.network.slots import Slots, slots_of

_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_OPAQUE = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_LEFT_ALONE = ("torch", "builtins", "threading", "_thread")
_KINDS = frozenset([dict, collections.OrderedDict, collections.defaultdict, list, set, collections.deque, Slots])
_PLAIN = frozenset([*_ATOMS, Tensor, nn.Parameter])
_SLOTS = ("_parameters", "_buffers", "_modules")
_DEPTH = 4


@attrs.frozen(eq=False)
class Held:
    """What a network holds.

    `tensors` has every tensor once: parameters and buffers by their first name, what modules keep otherwise by its path
    (`encoder.history[0]`). `kept` names the parameters and buffers that stand in such a place too.
    """

    tensors: dict[str, Tensor]
    kept: frozenset[str]


def held(model: nn.Module) -> Held:
    """Return every tensor that the network holds; equal copies of a network give equal names."""
    registered = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {name: tensor for name, tensor in registered.items() if not is_lazy(tensor)}
    names = {id(tensor): name for name, tensor in tensors.items()}
    kept: set[str] = set()
    seen = {id(module) for module in model.modules()}
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            # Recurrent layers keep a list of their own weights, which is kept up to date.
            if key in _SLOTS or key == "_flat_weights" or isinstance(value, _ATOMS):
                continue
            for path, tensor in _inside(value, f"{prefix}.{key}" if prefix else key, seen, _DEPTH):
                if is_lazy(tensor):
                    continue
                if id(tensor) in names:
                    kept.add(names[id(tensor)])
                else:
                    names[id(tensor)] = path
                    tensors[path] = tensor
    return Held(tensors, frozenset(kept))


def containers(values: Any, seen: set[int], depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield every container, and the attributes of every plain object, among and inside `values`, each once, with a copy."""
    for value in values:
        # This runs for every sample of every step, mostly over the empty dicts of hooks: the common cases first.
        kind = type(value)
        if kind in _PLAIN:
            continue
        content = value if kind in _KINDS else _content(value)
        known = id(value if type(content) is Slots else content)
        if known in seen or type(content) not in _KINDS:
            continue
        seen.add(known)
        if not content:
            yield content, ()
            continue
        yield content, (dict(content) if isinstance(content, dict | Slots) else list(content))
        if depth:
            yield from containers(content.values() if isinstance(content, dict | Slots) else content, seen, depth - 1)


def _content(value: Any) -> Any:
    """Return a container, or the attributes of an object or of a module that is no submodule; None for anything else."""
    if isinstance(value, (Tensor, *_ATOMS)):
        return None
    if type(value) in _KINDS:
        return value
    if isinstance(value, nn.Module):
        return vars(value)
    if type(value).__module__ in _LEFT_ALONE or isinstance(value, _OPAQUE):
        return None
    if slots_of(type(value)):
        return Slots(value)
    return getattr(value, "__dict__", None)


def _inside(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a value with their paths, those of modules in lists and objects too."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if isinstance(value, nn.Module) and id(value) in seen:
        return
    content = value if isinstance(value, tuple) else _content(value)
    known = id(value if type(content) is Slots else content)
    if content is None or known in seen or not depth:
        return
    if not isinstance(content, tuple):
        if type(content) not in _KINDS:
            return
        seen.add(known)
    if isinstance(value, nn.Module):
        seen.add(id(value))
        depth += 2  # its parameters stand in `_parameters`, its submodules in `_modules`
    if isinstance(content, dict | Slots):
        for key, item in content.items():
            yield from _inside(item, f"{path}.{key}" if content is not value else f"{path}[{key!r}]", seen, depth - 1)
    else:
        for i, item in enumerate(content):
            yield from _inside(item, f"{path}[{i}]", seen, depth - 1)
