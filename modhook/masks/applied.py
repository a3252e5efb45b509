"""Masks of weights put to use: within a block, in the network itself, or in a copy of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from modhook.masks.keep import masked_off
from modhook.masks.off import Off, off_weights
from modhook.network.twin import twin as copied
from modhook.network.unmasked import masking

_M = TypeVar("_M", bound=nn.Module)


@contextlib.contextmanager
def applied(masks: Mapping[str, Tensor], model: nn.Module, off: Off = None, seed: int = 0) -> Iterator[None]:
    """Within it the weights that are not kept are zero, or what `off` says; the network is lent by whoever calls this.

    Args:
        masks: {a parameter's first name: bool tensor of its shape}, True for what is kept.
        model, off, seed: as in `Masks.applied_to`.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        others = off_weights(model, masks, off, seed) or {}
        masked = {n: _masked(parameters[n], m, others.get(n)) for n, m in masks.items()}
    originals: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, tensor in masked.items():
            originals.append((parameters[name], parameters[name].data))
            parameters[name].data = tensor
        with masking({name: original for name, (_, original) in zip(masked, originals, strict=True)}):
            yield
    finally:
        for parameter, original in reversed(originals):
            parameter.data = original


def materialized(masks: Mapping[str, Tensor], model: _M, off: Off = None, seed: int = 0) -> _M:
    """Return a plain deep copy whose weights that are not kept are zero, or what `off` says. Arguments as in `applied`."""
    others = off_weights(model, masks, off, seed) or {}
    twin = copied(model)
    parameters = dict(twin.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        # Not in place: another parameter may stand on the same memory.
        parameters[name].data = _masked(parameters[name], mask, others.get(name))
    return twin


def _masked(parameter: Tensor, mask: Tensor, off: Tensor | None) -> Tensor:
    if off is not None:
        return torch.where(mask.to(parameter.device), parameter.detach(), off)
    return masked_off(parameter.detach(), mask.to(parameter.device))
