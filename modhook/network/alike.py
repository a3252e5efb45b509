"""Whether two networks hold the same beside their parameters: everything else that a forward pass may read."""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

import numpy as np
from torch import Tensor, nn

from modhook.network.guard import same_bits
from modhook.network.kinds import ATOMS, Drawing, State, contents
from modhook.network.slots import Slots

_SAVING = frozenset(["_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"])
"""What no forward pass reads."""


def unlike(one: nn.Module, other: nn.Module) -> str:
    """Return where two networks of one structure hold different values beside their parameters, as a path; "" where nowhere.

    Parameters are the same where they have the same name. What cannot be compared counts as different.
    """
    here, there = dict(one.named_modules()), dict(other.named_modules())
    pairs = {id(module): there[name] for name, module in here.items()}
    theirs = dict(other.named_parameters())
    pairs |= {id(p): theirs[name] for name, p in one.named_parameters()}
    look = _Look(pairs)
    for name, module in here.items():
        mine, yours = _attributes(module), _attributes(there[name])
        for key in dict.fromkeys([*mine, *yours]):
            if key not in mine or key not in yours or not look.same(mine[key], yours[key], hooks="_hooks" in key):
                return f"{name}.{key}" if name else key
    return ""


def alike(one: Any, other: Any) -> bool:
    """Return whether two values are the same, whatever their `==` says: of one type, with the same content."""
    return _Look({}).same(one, other)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if key != "_buffers" and key not in _SAVING} | module._buffers


class _Look:
    """Compares values, whatever they are; `pairs` has what stands for what, by the id of the first."""

    def __init__(self, pairs: dict[int, Any]) -> None:
        self._pairs = pairs

    def same(self, one: Any, other: Any, *, hooks: bool = False) -> bool:
        """Return whether two values are the same to a forward pass; hooks are filed under numbers that no two have."""
        try:
            if hooks and isinstance(one, dict) and isinstance(other, dict):
                return self._same_items(list(one.values()), list(other.values()))
            return self._same(one, other)
        except Exception:  # an __eq__ of the user's own, a value that refers to itself too deeply
            return False

    def _same(self, one: Any, other: Any) -> bool:
        if id(one) in self._pairs:
            return self._pairs[id(one)] is other
        if one is other:
            return True
        if type(one) is not type(other):
            return False
        if isinstance(one, Tensor):
            return same_bits(one, other)
        if isinstance(one, float | complex):
            return repr(one) == repr(other)  # 0.0 is not -0.0, and NaN is NaN
        if isinstance(one, ATOMS):
            return bool(one == other)
        if isinstance(one, np.ndarray) and not one.dtype.hasobject:
            return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        if isinstance(one, weakref.ref):
            return self._same(one(), other())
        if (parts := _parts(one)) is not None:
            return self._same_items(parts, _parts(other))
        found, against = contents(one), contents(other)
        if not found:
            return type(one) is object or bool(one == other)
        self._pairs[id(one)] = other  # for what refers to itself
        return all(self._same_content(a, b) for a, b in zip(found, against, strict=True))

    def _same_content(self, one: Any, other: Any) -> bool:
        if isinstance(one, Drawing):
            return one.same(other.take())
        if isinstance(one, State):
            one, other = one.take(), other.take()
        if isinstance(one, Slots):
            one, other = dict(one), dict(other)
        if isinstance(one, set | frozenset | bytearray):
            return bool(one == other)
        if isinstance(one, dict):
            return list(one) == list(other) and self._same_items(list(one.values()), list(other.values()))
        return self._same_items(list(one), list(other))

    def _same_items(self, one: Any, other: Any) -> bool:
        return len(one) == len(other) and all(map(self._same, one, other))


def _parts(value: Any) -> Any:
    """Return what a tuple or a callable is made of; None for anything else."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, *(value.__kwdefaults__ or {}).items(), *cells]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, *value.keywords.items()]
    return None
