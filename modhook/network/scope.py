"""Puts tensors in the places of a model's parameters and buffers, and takes everything back.

The model is the user's own object, not a copy: closures, hooks and bound methods that refer to it see the new tensors.
Afterwards it is itself again, also after an exception: the same parameter objects, buffers, flags and attributes.
"""

from __future__ import annotations

import collections
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def parameter_names(model: nn.Module) -> dict[str, str]:
    """Return {every name of every parameter: the first name of the same tensor}; tied weights have several names."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[name] = first.setdefault(id(parameter), name)
    return names


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Undo, on leaving, what was set in any module, in objects that modules keep, and in their lists, dicts and sets."""
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    seen = {id(module) for module in modules}
    containers = [copied for kept in attributes for copied in _containers(kept.values(), seen)]
    try:
        yield
    finally:
        for module, kept in zip(modules, attributes, strict=True):
            if len(module.__dict__) != len(kept) or _differs(module.__dict__, kept):
                module.__dict__.clear()
                module.__dict__.update(kept)
        for container, content in containers:
            _refill(container, content)


@contextmanager
def substituted(model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the model with these tensors: `parameters` by first name, at every place where that parameter stands.

    Parameters that are not named are replaced by themselves, detached, so that no gradient is computed for them.
    """
    with restored(model):
        stand_ins: dict[int, Tensor] = {}
        for name, parameter in model.named_parameters():
            new = parameters.get(name)
            stand_ins[id(parameter)] = parameter.detach() if new is None else new
        for prefix, module in model.named_modules():
            slots: dict[str, Any] = module._parameters
            for key, parameter in slots.items():
                if parameter is not None:
                    slots[key] = stand_ins[id(parameter)]
            for key in module._buffers:
                new = buffers.get(f"{prefix}.{key}" if prefix else key)
                if new is not None:
                    module._buffers[key] = new
        refresh(model)
        yield


def refresh(model: nn.Module) -> None:
    """Let recurrent layers, which keep a list of their weights, see the tensors that are in place now."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            names = module._flat_weights_names
            module.__dict__["_flat_weights"] = [getattr(module, name, None) for name in names]


def _differs(now: dict[str, Any], kept: dict[str, Any]) -> bool:
    return any(key not in now or now[key] is not value for key, value in kept.items())


_ATOMS = (str, bytes, int, float, complex, bool, type(None), Tensor)
_OPAQUE = (nn.Module, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_LEFT_ALONE = ("torch", "builtins", "threading", "_thread")
_KINDS = (dict, collections.OrderedDict, collections.defaultdict, list, set, collections.deque)


def _containers(values: Any, seen: set[int], depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield every container, and the attributes of every plain object, among and inside `values`, each once, with a copy."""
    for value in values:
        content: Any = None
        if isinstance(value, _ATOMS):
            continue
        if type(value) in _KINDS:
            content = value
        elif type(value).__module__ not in _LEFT_ALONE and not isinstance(value, _OPAQUE):
            content = getattr(value, "__dict__", None)
        if type(content) not in _KINDS or id(content) in seen:
            continue
        seen.add(id(content))
        yield content, (dict(content) if isinstance(content, dict) else list(content))
        if depth:
            yield from _containers(content.values() if isinstance(content, dict) else content, seen, depth - 1)


def _refill(container: Any, content: Any) -> None:
    """Give a container its old content back, in the old order, if it has changed."""
    if isinstance(container, dict):
        same = len(container) == len(content) and not _differs(container, content)
    else:
        same = len(container) == len(content) and all(a is b for a, b in zip(container, content, strict=True))
    if same:
        return
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(content)
    else:
        container.extend(content)
