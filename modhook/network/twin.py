"""A copy of a network that shares no weight with it, also where `copy.deepcopy` cannot copy it or hands it back uncopied."""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modhook.errors import StackError
from modhook.network.guard import memory_of

_M = TypeVar("_M", bound=nn.Module)
_AS_THEY_ARE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, weakref.ref)


def twin(model: _M, weights: Mapping[str, Tensor] | None = None, *, share: bool = False) -> _M:
    """Return a deep copy of a network: same names, ties, modes and attributes, and no parameter or buffer in common.

    `weights` are values of parameters, by first name, that the copy holds instead of the network's own; where they may `share`, the
    copy may stand on their memory.

    Tensors that belong to an autograd graph (kept activations, the `weight` of torch.nn.utils.weight_norm, pruned weights)
    are copied without it. What Python cannot copy, such as a lock, an open file or a generator, is shared with the original.

    Raises:
        StackError: no such copy can be made; the message says which part is in the way.
    """
    weights = {} if weights is None else weights
    new = _parameters(model, weights, share)
    try:
        with _Detached():
            copied = copy.deepcopy(model, dict(new))
        wrong = _difference(model, copied)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if not wrong:
        return _filled(copied, weights, new)
    try:
        with _Detached():
            copied = _ByHand().copy(model)
        wrong = _difference(model, copied)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        raise StackError(
            f"{type(model).__name__} cannot be copied, and masks are checked on copies ({wrong}): give the module that says "
            "so a `__deepcopy__` that returns a copy with parameters of its own"
        )
    return _filled(copied, weights, {})


def _parameters(model: nn.Module, weights: Mapping[str, Tensor], share: bool) -> dict[int, nn.Parameter]:
    """Return {id of a parameter: a copy of it with another value}, made at once and not copied first; plain parameters only."""
    found = {}
    for name, own in model.named_parameters():
        if name in weights and type(own) is nn.Parameter and own.layout is torch.strided:
            value, alike = weights[name], own.is_contiguous() and weights[name].is_contiguous()
            found[id(own)] = nn.Parameter(
                value if share and alike else torch.empty_like(own.detach()).copy_(value), own.requires_grad
            )
    return found


def _filled(model: _M, weights: Mapping[str, Tensor], known: Mapping[int, nn.Parameter]) -> _M:
    """Write these values into all parameters of a copy but those that have them."""
    filled = {id(parameter) for parameter in known.values()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights and id(parameter) not in filled:
                parameter.copy_(weights[name])
    return model


class _Detached(TorchFunctionMode):
    """Within it, tensors that have a grad_fn can be deep-copied; the copies have none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, on a detached tensor where it is the deep copy of one with a history."""
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = copy.deepcopy(tensor.detach(), memo)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


class _ByHand:
    """Copies modules attribute by attribute, whatever their own `__deepcopy__` says; what cannot be copied is shared."""

    def __init__(self) -> None:
        self._memo: dict[int, Any] = {}

    def copy(self, model: _M) -> _M:
        """Return the copy of a network."""
        modules = list(model.modules())
        for module in modules:  # first all of them, since they may refer to each other
            self._memo[id(module)] = module.__class__.__new__(module.__class__)
        for module in modules:
            self._attributes(module, self._memo[id(module)])
        new: _M = self._memo[id(model)]
        return new

    def _attributes(self, old: Any, new: Any) -> None:
        for key, value in vars(old).items():
            new.__dict__[key] = self._value(value)
        if isinstance(new, nn.RNNBase):
            weights = [getattr(new, name, None) for name in new._flat_weights_names]
            new.__dict__["_flat_weights"] = weights
            new.__dict__["_flat_weight_refs"] = [None if w is None else weakref.ref(w) for w in weights]

    def _value(self, value: Any) -> Any:
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, _AS_THEY_ARE):
            return value
        if isinstance(value, torch.Generator):
            new = torch.Generator(value.device)
            new.set_state(value.get_state())
            return self._known(value, new)
        if not isinstance(value, nn.Module):
            known = len(self._memo)
            try:
                made = copy.deepcopy(value, self._memo)
            except Exception:
                while len(self._memo) > known:  # what was left half done must not be taken for done
                    self._memo.popitem()
            else:
                if made is not value or not _mutable(value):
                    return made
                self._memo.pop(id(value), None)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self._value(value.__self__))
        if type(value) in (list, dict) or (isinstance(value, dict) and type(value).__module__ == "collections"):
            return self._container(value)
        if isinstance(value, (tuple, set, frozenset)) and type(value) in (tuple, set, frozenset):
            return self._known(value, type(value)(self._value(item) for item in value))
        # Objects that are more than their attributes, such as files, cannot be made anew from these.
        make: Any = type(value).__new__
        plain = isinstance(value, types.SimpleNamespace) or make is object.__new__
        if isinstance(value, nn.Module) or (
            plain and hasattr(value, "__dict__") and type(value).__module__ != "threading"
        ):
            return self._object(value)
        return value  # a lock, a file, a generator

    def _container(self, value: Any) -> Any:
        new = self._known(value, copy.copy(value))
        new.clear()
        if isinstance(value, dict):
            for key, item in value.items():
                new[key] = self._value(item)
        else:
            new.extend(self._value(item) for item in value)
        return new

    def _object(self, value: Any) -> Any:
        new = self._known(value, value.__class__.__new__(value.__class__))
        self._attributes(value, new)
        return new

    def _known(self, old: Any, new: Any) -> Any:
        self._memo[id(old)] = new
        return new


def _mutable(value: Any) -> bool:
    """Return whether a copy that is the object itself is none: one that holds tensors or modules."""
    if isinstance(value, Tensor | nn.Module):
        return True
    return any(isinstance(item, Tensor | nn.Module) for item in getattr(value, "__dict__", {}).values())


def _difference(model: nn.Module, copied: Any) -> str:
    """Say in what a copy is none: not the same names or ties, or memory in common; "" if it is one."""
    if copied is model:
        return "its __deepcopy__ returns the module itself"
    if not isinstance(copied, nn.Module):
        return f"its __deepcopy__ returns a {type(copied).__name__}"
    for kind in ("named_parameters", "named_buffers"):
        own = dict(getattr(model, kind)(remove_duplicate=False))
        new = dict(getattr(copied, kind)(remove_duplicate=False))
        if own.keys() != new.keys():
            return f"the copy lacks or adds {min(own.keys() ^ new.keys())!r}"
        if _first_names(own) != _first_names(new):
            return "other tensors are tied in the copy"
        for name, tensor in own.items():
            if tensor.shape != new[name].shape or tensor.dtype != new[name].dtype:
                return f"{name!r} has another shape or type in the copy"
    memory = {memory_of(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    memory.pop(-1, None)
    for _, tensor in (*copied.named_parameters(), *copied.named_buffers()):
        if memory_of(tensor) in memory:
            return f"the copy shares {memory[memory_of(tensor)]!r} with the original"
    return ""


def _first_names(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return {name: first name of the same tensor}."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
