"""Says why a loss cannot teach masks anything: it is run once more, on a copy of the network, and listened to."""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from modhook.errors import StackError, UserError
from modhook.fit.groups import one_group
from modhook.network.recurrent import with_gradients
from modhook.network.twin import twin as copied


@attrs.define
class Calls:
    """Which networks a loss called: the one that it was given, and in which way, and the user's own."""

    given: bool = False
    without_gradient: bool = False
    own: str | None = None


def listened(model: nn.Module, loss: Any, batch: Any) -> Calls | None:
    """Return which networks a loss calls for one group of a batch; None where it cannot be run on a copy."""
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

    listening = register_module_forward_pre_hook(hear)
    try:
        with torch.enable_grad(), with_gradients(twin), contextlib.suppress(Exception):
            loss(twin, batch)
    finally:
        listening.remove()
    return found


def scalars(model: nn.Module, loss: Any, losses: Any, groups: Any) -> Tensor:
    """Return what a loss returned for the groups of a batch, (k,). Raises `UserError` for what is no scalar or has no gradient."""
    if not isinstance(losses, Tensor):
        hint = "; return the tensor itself" if isinstance(losses, float) else ""
        raise UserError(f"loss must return one scalar tensor per call, but returned {type(losses).__name__}{hint}.")
    if losses.dim() != 1:
        raise UserError(
            f"loss must return one scalar tensor per call, but returned a tensor of shape {tuple(losses.shape[1:])}; "
            "take its mean, for example."
        )
    if not losses.requires_grad:
        raise UserError(without_gradient(model, loss, one_group(groups)))
    if losses.is_complex():
        raise UserError("loss must return a real number, but returned a complex one; take its real part or abs().")
    return losses


def without_gradient(model: nn.Module, loss: Any, batch: Any) -> str:
    """Return one sentence on why a loss has no gradient."""
    calls = listened(model, loss, batch)
    if calls is not None and calls.own is not None and not calls.given:
        return calls_the_model(calls.own)
    if calls is not None and not calls.given:
        return (
            "the loss does not depend on any masked parameter: it does not call `net`, its first argument, which stands for "
            "the network under one mask."
        )
    if calls is not None and calls.without_gradient:
        return "the loss has no gradient: it calls `net` under torch.no_grad(); take that out of the loss."
    return (
        "the loss does not depend on any masked parameter; check the patterns, or whether the loss detaches: detach(), item(), "
        "numpy(), argmax() and comparisons of what `net` returns have no gradient."
    )


def calls_the_model(name: str) -> str:
    """Return one sentence on a loss that calls the user's own network, or the submodule of this name."""
    what = f"the model's own submodule {name!r}" if name else "the model itself"
    return (
        f"the loss calls {what}, which has no mask, instead of `net`, its first argument, which stands for the network under "
        "one mask: call `net`; outputs of the network without masks belong into the batches."
    )
