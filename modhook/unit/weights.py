"""Masks of units as masks of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modhook.unit.group import Group
from modhook.values.arguments import instance


def on_weights(
    masks: Mapping[str, Tensor], groups: Mapping[str, Group], parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return which weights are kept: {parameter: bool tensor of its shape}, a weight if all of its units are.

    Args:
        masks: {group: bool tensor (n,)}, and masks of parameters, on the CPU.
        groups: the groups among them. parameters: the network's, by name.
    """
    found = {n: m for n, m in masks.items() if n not in groups}
    for name, mask in masks.items():
        group = groups.get(name)
        for part in () if group is None else group.parts:
            before = found.get(part.parameter)
            if before is None:
                before = torch.ones(parameters[part.parameter].shape, dtype=torch.bool, device=mask.device)
            found[part.parameter] = before & part.spread(mask)
    return found


def pooled(group: Group, scores: Mapping[str, Tensor], how: str = "sum") -> Tensor:
    """Return a number per unit, (n,), of numbers per weight: their "sum" or their "mean" over the unit's weights.

    Weights that several units share count for each of them.
    """
    first = scores[group.parts[0].parameter]
    total = torch.zeros(len(group), dtype=torch.float64, device=first.device)
    for part in group.parts:
        values, owner = scores[part.parameter].detach().double(), part.owner.to(first.device)
        dims = [d for d in range(values.dim()) if owner.shape[d] == 1]
        flat = (
            (values.sum(dims, keepdim=True) if dims else values).expand_as(owner).reshape(-1)
        )  # a sum per place of the owner
        place = owner.reshape(-1)
        own = torch.zeros(len(group) // part.pool, dtype=torch.float64, device=first.device)
        own.index_add_(0, place[place >= 0], flat[place >= 0])
        total += own.repeat_interleave(part.pool)
    if how == "mean":
        total /= group.weights(scores).to(total.device).clamp_min(1)
    return total.to(first.dtype)


def groups_of(units: Mapping[str, Group]) -> dict[str, Group]:
    """Return groups by name. Raises `UserError` for anything else."""
    instance("units", units, Mapping, "the units of masks or of a network (masks.units, modhook.units(model))")
    for group in units.values():
        instance("units", group, Group, "groups of units by name")
    return dict(units)
