"""Which networks a loss or score uses: the one that it is given, or the user's own by a variable, which is another one under masks."""

from __future__ import annotations

import contextlib
import functools
import types
import warnings
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

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
    """A parameter of the user's own network on which its value depends."""


def listened(model: nn.Module, loss: Any, batch: Any, weights: Collection[str] = ()) -> Calls | None:
    """Return which networks a loss calls for one group of a batch; None where it cannot be run on a copy.

    With `weights` it is said, too, on which of these parameters of the user's own network its value depends, by its gradient.
    """
    found = Calls()
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

    parameters = {n: model.get_parameter(n) for n in weights}
    frozen = [p for p in parameters.values() if not p.requires_grad]
    listening = register_module_forward_pre_hook(hear)
    try:
        for parameter in frozen:
            parameter.requires_grad_()
        with torch.enable_grad(), with_gradients(twin), contextlib.suppress(Exception):
            value = loss(twin, batch)
            if parameters and isinstance(value, torch.Tensor) and value.requires_grad:
                gradients = torch.autograd.grad(value.sum(), [*parameters.values()], allow_unused=True)
                used = zip(parameters, gradients, strict=True)
                found.weight = next((name for name, gradient in used if gradient is not None), None)
    finally:
        listening.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)
    return found


def refuse_own(
    what: str, model: nn.Module, function: Callable[..., Any], run: Callable[[nn.Module], Any], weights: Collection[str] = ()
) -> None:
    """Raise `UserError` for a loss or score that uses the network by a variable, and not as its first argument.

    It calls it, or its value depends on one of the network's own parameters, of those called `weights` (first names).

    It is looked at only where such a variable is in reach: what a function is called with once more is counted twice by what counts.

    Args:
        what: "loss" or "score". function: it. run: calls it for one batch, with the network that it is given.
    """
    own = {id(module) for module in model.modules()} | {id(model.get_parameter(n)) for n in weights}

    def theirs(found: nn.Module | torch.Tensor) -> bool:
        if isinstance(found, torch.Tensor):
            return id(found) in own or (found._is_view() and id(found._base) in own)
        return any(id(module) in own for module in found.modules())

    if not any(map(theirs, _reached(function, _DEPTH, set()))):
        return
    with undisturbed():
        calls = listened(model, lambda net, _: run(net), None, weights)
    if calls is not None and calls.own is not None:
        raise UserError(calls_the_model(calls.own, what))
    if calls is not None and calls.weight is not None:
        raise UserError(computes_with(calls.weight, f"the {what}"))


@contextlib.contextmanager
def hearing(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of a network (""), and of its submodules, that are called, by whatever variable."""
    own = {id(module): name for name, module in model.named_modules()}
    heard: list[str] = []

    def hear(module: nn.Module, _: Any) -> None:
        if id(module) in own:
            heard.append(own[id(module)])

    listening = register_module_forward_pre_hook(hear)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*global hooks on modules")  # torch.compile's
            yield heard
    finally:
        listening.remove()


def computes_with(weight: str, whose: str) -> str:
    """Return one sentence on a loss ("the loss of 'low'") whose value depends on the user's own parameter of this name."""
    return (
        f"{whose} computes with the model's own {weight!r}, by a variable, which has no mask: call its first argument, or take the weight "
        f"from it, net.get_parameter({weight!r}); if the network without a mask is meant, detach() what it gives."
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
