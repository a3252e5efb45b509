"""What masks must be: bool tensors by name, of the shapes of a network's parameters or of its groups of units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modhook.errors import MaskError, listing
from modhook.unit.group import Group
from modhook.values.arguments import shown

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module's parameters."""


def copies(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks on the CPU, in memory of their own. Raises `MaskError` for anything but bool tensors by name."""
    if not isinstance(masks, Mapping):
        raise MaskError(f"masks must be a mapping {{parameter name: bool tensor}}, not {type(masks).__name__}.")
    for name, mask in masks.items():
        if not isinstance(name, str):
            raise MaskError(f"the name of a mask must be a text, not {shown(name)}.")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise MaskError(f"the mask of {name!r} must be a bool tensor, not {kind}.")
    return {name: mask.detach().to("cpu", copy=True) for name, mask in masks.items()}


def check_fit(masks: Mapping[str, Tensor], groups: Mapping[str, Group], model: nn.Module, where: str = "") -> None:
    """Raise `MaskError` for masks, those of groups of units among them, whose names or shapes are not this network's."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if (group := groups.get(name)) is not None:
            group.check(parameters, where)
            if mask.shape != (len(group),):
                raise MaskError(
                    f"the mask of {name!r}{where} has shape {tuple(mask.shape)}, but there are {len(group)} units."
                )
            continue
        if name not in parameters:
            compiled = name.removeprefix(COMPILED) in parameters or f"{COMPILED}{name}" in parameters
            hint = "; learn masks on the module itself, and compile it afterwards" if compiled else f"; it has: {listing(parameters)}"
            raise MaskError(f"the mask {name!r}{where} has no parameter in {type(model).__name__}{hint}.")
        if mask.shape != parameters[name].shape:
            raise MaskError(
                f"the mask of {name!r}{where} has shape {tuple(mask.shape)}, but the parameter has {tuple(parameters[name].shape)}; "
                "these masks belong to another network."
            )
