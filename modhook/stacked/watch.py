"""Stops a forward pass before it writes into a tensor that is not its own, so that the call can be run again on copies.

What a network writes is known from the first call of a kind; this is for networks that write on some inputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modhook.network.guard import memory_of

# Handles to a tensor's memory, through which it can be written without a trace.
_HANDLES = frozenset(
    [Tensor.data.__get__, Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.untyped_storage, Tensor.__dlpack__]  # type: ignore[attr-defined]
)
_SETTERS = frozenset([Tensor.data.__set__, Tensor.__setitem__])  # type: ignore[attr-defined]
# {lookup: place of its argument `sparse`}: a sparse gradient of one sample cannot be stacked with the others.
_LOOKUPS = {F.embedding: 6, torch.embedding: 4, F.embedding_bag: 7, torch.embedding_bag: 5}
_NOTHING, _WRITES, _HANDLES_OUT, _LOOKS_UP = range(4)


class Written(BaseException):
    """Stops a call that is about to write; no `Exception`, so that a model that catches those does not catch it."""


class Watch(TorchFunctionMode):
    """Active during one stacked call.

    Args:
        given: the stacked parameters, by name.
        own: returns {memory: names} of the network's own tensors.
        written: names of what may be written, as copies stand in its places.

    Attributes:
        found: names of what something was about to write, and of stacked parameters whose memory something asked for.
        touched: names of the network's own tensors whose memory something asked for.
    """

    def __init__(
        self,
        given: Mapping[str, Tensor] | None = None,
        own: Callable[[], Mapping[int, set[str]]] = dict,
        written: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.touched: set[str] = set()
        self._given = {name: tensor for name, tensor in (given or {}).items() if name not in written}
        self._versions = [(name, tensor._version) for name, tensor in self._given.items()]
        self._own, self._written = own, written
        self._memory: dict[int, set[str]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, unless it would write into one of the tensors."""
        args, kwargs = self.look(func, args, kwargs or {})
        return func(*args, **kwargs)

    def look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments to call `func` with. Raises `Written` if it would write into one of the tensors."""
        kind = _KINDS.get(func)
        if kind is None:
            kind = _KINDS.setdefault(func, _kind(func))
        if kind in (_WRITES, _HANDLES_OUT) and args:
            self._refuse(args[0], writes=kind == _WRITES)
        elif kind == _LOOKS_UP:
            args, kwargs = _dense(func, args, kwargs)
        if kwargs and kwargs.get("out") is not None:
            self._refuse(kwargs["out"], writes=True)
        return args, kwargs

    def passed(self) -> set[str]:
        """Return the stacked parameters that were written all the same, by compiled code for example."""
        return {name for name, version in self._versions if self._given[name]._version != version}

    def _refuse(self, target: Any, *, writes: bool) -> None:
        if self._memory is None:
            self._memory = {}
            for name, tensor in self._given.items():
                self._memory.setdefault(memory_of(tensor), set()).add(name)
        for tensor in _tensors(target):
            memory = memory_of(tensor)
            given, own = self._memory.get(memory, set()), self._own().get(memory, set()).difference(self._written)
            if given or (own and writes):
                self.found.update(given, own)
                raise Written(", ".join(sorted(self.found)))
            self.touched.update(own)


_KINDS: dict[Any, int] = {}


def _kind(func: Any) -> int:
    if func in _HANDLES:
        return _HANDLES_OUT
    if func in _SETTERS:
        return _WRITES
    if func in _LOOKUPS:
        return _LOOKS_UP
    name = str(getattr(func, "__name__", ""))
    in_place = name.endswith("_") and not name.endswith("__")
    return _WRITES if (in_place and name != "requires_grad_") or name.startswith("__i") else _NOTHING


def _dense(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Ask a lookup for a dense gradient: the same numbers."""
    at = _LOOKUPS[func]
    if len(args) > at and args[at]:
        args = (*args[:at], False, *args[at + 1 :])
    return args, {**kwargs, "sparse": False} if kwargs.get("sparse") else kwargs


def _tensors(target: Any) -> Iterable[Tensor]:
    if isinstance(target, Tensor):
        return (target,)
    return [t for t in target if isinstance(t, Tensor)] if isinstance(target, (list, tuple)) else ()
