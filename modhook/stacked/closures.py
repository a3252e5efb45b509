"""Finds functions in a network, such as forward hooks, that reach a module through a variable instead of an argument.

A copy of the network, or the network under other weights, cannot change what such a variable stands for.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn

_HOOKS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}
_DEPTH = 4


@attrs.frozen
class Reach:
    """A function of a submodule, and a module or parameter that it reaches through a variable of this name."""

    module: str
    what: str
    function: types.FunctionType
    variable: str
    value: nn.Module | nn.Parameter

    def __str__(self) -> str:
        owner = f"submodule {self.module!r}" if self.module else "the model"
        code = self.function.__code__
        where = f"{self.function.__name__!r} in {code.co_filename}, line {code.co_firstlineno}"
        return f"the {self.what} of {owner} ({where}) uses a variable from outside it, {self.variable!r}"

    def holds(self, parameter: Tensor) -> bool:
        """Return whether this parameter is the one, or one of the module's."""
        if isinstance(self.value, nn.Module):
            return any(parameter is own for own in self.value.parameters())
        return parameter is self.value


def reaches(model: nn.Module) -> Iterator[Reach]:
    """Yield what functions that the network's modules keep reach through closures, defaults and globals."""
    for prefix, module in model.named_modules():
        for attribute, value in list(vars(module).items()):
            functions = list(value.values()) if attribute in _HOOKS else [value]
            for function in functions:
                if not isinstance(function, types.FunctionType):  # others are copied with what they hold
                    continue
                what = _HOOKS.get(attribute, f"function in attribute {attribute!r}")
                for variable, found in _variables(function, _DEPTH):
                    # Itself is what a replaced `forward` calls first.
                    if found is not module:
                        yield Reach(prefix, what, function, variable, found)


def reached(model: nn.Module, parameter: Tensor) -> Reach | None:
    """Return which function reaches this parameter; that which reaches the smallest module, if several do."""
    found = [reach for reach in reaches(model) if reach.holds(parameter)]
    return min(found, key=_size, default=None)


def _size(reach: Reach) -> int:
    return len(list(reach.value.modules())) if isinstance(reach.value, nn.Module) else 0


def _variables(function: types.FunctionType, depth: int) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not set yet
            continue
        yield from _modules(value, name, depth)
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield from _modules(value, name, depth)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield from _modules(value, name, depth)
    for name in code.co_names:
        if name in function.__globals__:
            value = function.__globals__[name]
            if isinstance(value, nn.Module | nn.Parameter):
                yield name, value


def _modules(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module | nn.Parameter):
        yield name, value
    elif depth == 0:
        return
    elif isinstance(value, types.FunctionType):
        yield from _variables(value, depth - 1)
    elif isinstance(value, types.MethodType):
        yield from _modules(value.__self__, name, depth - 1)
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _modules(part, name, depth - 1)
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _modules(part, name, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType) and not callable(value):
        for part in list(vars(value).values()):
            yield from _modules(part, name, depth - 1)
