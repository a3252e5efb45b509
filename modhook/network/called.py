"""Which networks a loss or score uses: the one that it is given, or the user's own by a variable, which is another one under masks."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from modhook.errors import StackError, UserError
from modhook.network.containers import ATOMS
from modhook.network.recurrent import with_gradients
from modhook.network.twin import twin as copied
from modhook.values.randomness import undisturbed

_DEPTH = 5
_MANY, _ALL = 1_000, 10_000
"""How many values of a container, and of all, are looked at: networks are not kept behind more."""


@attrs.define
class Calls:
    """Which networks a loss called: the one that it was given, and in which way, and the user's own."""

    given: bool = False
    without_gradient: bool = False
    own: str | None = None
    weight: str | None = None
    """A parameter of the user's own network that it computes with."""


def listened(model: nn.Module, loss: Any, batch: Any, weights: Collection[str] = ()) -> Calls | None:
    """Return which networks a loss calls for one group of a batch; None where it cannot be run on a copy.

    With `weights` it is said, too, which of these parameters of the user's own network it computes with, or with a view of.
    """
    found = Calls()
    memory = {model.get_parameter(n).untyped_storage().data_ptr(): n for n in weights}
    own = {id(module): name for name, module in model.named_modules()}
    try:
        twin = copied(model)
    except StackError:
        return None
    twins = {id(module) for module in twin.modules()} - set(own)

    def hear(module: nn.Module, _: Any) -> None:
        if id(module) in twins:
            found.given = True
            found.without_gradient |= not torch.is_grad_enabled()
        elif id(module) in own and found.own is None:
            found.own = own[id(module)]

    listening = register_module_forward_pre_hook(hear)
    try:
        watching = _Watched(memory, found) if memory else contextlib.nullcontext()
        with torch.enable_grad(), with_gradients(twin), contextlib.suppress(Exception), watching:
            loss(twin, batch)
    finally:
        listening.remove()
    return found


class _Watched(TorchFunctionMode):
    """Notes in `found` the first parameter, by the memory of its storage, that torch is asked to compute with."""

    def __init__(self, memory: Mapping[int, str], found: Calls) -> None:
        super().__init__()
        self.memory, self.found = memory, found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and look at what was given where something new came out: views, shapes and copies are no use of a weight."""
        made = function(*args, **(kwargs or {}))
        if self.found.weight is None and isinstance(made, torch.Tensor) and function not in _COPIES:
            with torch._C.DisableTorchFunction():
                given = [t for v in (*args, *(kwargs or {}).values()) for t in (v if isinstance(v, list | tuple) else (v,))]
                if _memory(made) not in self.memory:
                    used = [self.memory.get(_memory(t)) for t in given if isinstance(t, torch.Tensor)]
                    self.found.weight = next(filter(None, used), None)
        return made


_COPIES = (torch.Tensor.clone, torch.clone)


def _memory(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a sparse one, or one of a transform
        return 0


def refuse_own(
    what: str, model: nn.Module, function: Callable[..., Any], run: Callable[[nn.Module], Any], weights: Collection[str] = ()
) -> None:
    """Raise `UserError` for a loss or score that uses the network by a variable, and not as its first argument.

    It calls it, or computes with one of the parameters `weights` (first names).

    It is looked at only where such a variable is in reach: what a function is called with once more is counted twice by what counts.

    Args:
        what: "loss" or "score". function: it. run: calls it for one batch, with the network that it is given.
    """
    own = {id(module) for module in model.modules()}
    memory = {model.get_parameter(n).untyped_storage().data_ptr() for n in weights}

    def theirs(found: nn.Module | torch.Tensor) -> bool:
        if isinstance(found, torch.Tensor):
            return _memory(found) in memory
        return any(id(module) in own for module in found.modules())

    if not any(map(theirs, _reached(function, _DEPTH, set()))):
        return
    with undisturbed():
        calls = listened(model, lambda net, _: run(net), None, weights)
    if calls is not None and calls.own is not None:
        raise UserError(calls_the_model(calls.own, what))
    if calls is not None and calls.weight is not None:
        raise UserError(
            f"the {what} computes with the model's own {calls.weight!r}, by a variable, which has no mask: take it from its first "
            f"argument, as net.{calls.weight}; if the weight without a mask is meant, give the {what} a copy of it, .detach().clone()."
        )


def calls_the_model(name: str, what: str = "loss") -> str:
    """Return one sentence on a loss or score that calls the user's own network, or the submodule of this name."""
    called = f"the model's own submodule {name!r}" if name else "the model itself"
    if what == "loss":
        return (
            f"the loss calls {called}, which has no mask, instead of `net`, its first argument, which stands for the network under "
            "one mask: call `net`; outputs of the network without masks belong into the batches, or into `with modhook.unmasked(net)`."
        )
    return (
        f"the {what} calls {called}, which has masks as well where it is measured, instead of its first argument: call that alone; outputs "
        "of the network without masks belong into the batches, or into `with modhook.unmasked(net)`."
    )


def _reached(value: Any, depth: int, seen: set[int]) -> Iterator[nn.Module | torch.Tensor]:
    """Yield the networks and tensors that a function or value reaches: closures, defaults, globals, arguments of partials, attributes."""
    tensor = isinstance(value, torch.Tensor)
    if id(value) in seen or len(seen) > _ALL or (isinstance(value, (*ATOMS, type, types.ModuleType)) and not tensor):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module | torch.Tensor):
        yield value
        return
    if not depth:
        return
    inside: list[Any] = []
    if isinstance(value, types.FunctionType):
        if (value.__module__ or "").partition(".")[0] in ("torch", "numpy", "modhook"):
            return
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # not given a value yet
                inside.append(cell.cell_contents)
        inside += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        inside += [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
    elif isinstance(value, types.MethodType):
        inside = [value.__func__, value.__self__]
    elif isinstance(value, functools.partial):
        inside = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, dict):
        inside = list(islice(value.values(), _MANY))
    elif isinstance(value, list | tuple | set | frozenset):
        inside = list(islice(value, _MANY))
    else:
        inside = [*_body(value), *islice(getattr(value, "__dict__", {}).values(), _MANY)]
    for part in inside:
        yield from _reached(part, depth - 1, seen)


def _body(value: Any) -> list[Any]:
    """Return what an object does where it is called, if it can be."""
    return [type(value).__call__] if callable(value) else []


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)
