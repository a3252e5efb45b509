"""Says why a loss cannot teach masks anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.fit.groups import one_group
from modhook.network.called import calls_the_model, listened
from modhook.network.recurrent import with_gradients
from modhook.network.twin import twin as copied
from modhook.values.randomness import undisturbed


def scalars(model: nn.Module, loss: Any, losses: Any, groups: Any) -> Tensor:
    """Return what a loss returned for the groups of a batch, (k,). Raises `UserError` for what is no scalar or has no gradient."""
    if not isinstance(losses, Tensor):
        hint = "; return the tensor itself" if isinstance(losses, float) else ""
        if losses is None:
            hint = "; is a `return` missing, or does the batch lack the labels from which the network computes its loss?"
        elif getattr(losses, "loss", None) is not None:
            hint = "; return its .loss"
        elif isinstance(losses, dict) and "loss" in losses:
            hint = "; return its ['loss']"
        what = "None" if losses is None else type(losses).__name__
        raise UserError(f"loss must return one scalar tensor per call, but returned {what}{hint}.")
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


def runs(model: nn.Module, loss: Any, batch: Any) -> bool:
    """Return whether a loss can be computed of this batch by a copy of the network."""
    return _computed(model, loss, batch) is not None


def alone(model: nn.Module, loss: Any, batch: Any) -> float | None:
    """Return the loss of this batch of a copy of the network, without masks; None where it cannot be computed, or is no number."""
    value = _computed(model, loss, batch)
    return float(value[0].detach()) if value is not None and isinstance(value[0], Tensor) and value[0].numel() == 1 else None


def _computed(model: nn.Module, loss: Any, batch: Any) -> tuple[Any] | None:
    """Return what a loss returns of this batch and a copy of the network, as a tuple; None where it raises."""
    try:
        twin = copied(model)
        with torch.enable_grad(), with_gradients(twin), undisturbed():
            return (loss(twin, batch),)
    except Exception:
        return None


def cut_up(samples: int) -> str:
    """Return a note on an error that a part of a batch raises and the whole batch does not."""
    return (
        f"The whole batch passes: it is cut into {samples} groups of items, one per mask sample, and this is one of them. Give samples=1, "
        "larger batches, or modhook.shared(x) for what each group is to see whole."
    )
