"""Units that a user gives as a mapping {unit: {parameter: index}}, checked against the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError, listing, near_miss
from modhook.unit.group import Group, Part
from modhook.values.arguments import shown
from modhook.values.places import places_at

_HOW = "{unit name: {parameter name: index}}, such as {'first': {'0.weight': slice(0, 4), '0.bias': slice(0, 4)}}"


def given_units(model: nn.Module, mapping: Any, name: str) -> Group:
    """Return the group of a mapping; `name` is what it is called.

    Raises:
        UserError: no such mapping, a parameter that is not there, an index that leaves its tensor or takes nothing, a weight that two
            units own.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        raise UserError(
            f"units as a mapping are {_HOW}, not {'an empty one' if isinstance(mapping, Mapping) else shown(mapping)}."
        )
    every: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for parameter, tensor in every.items():
        first.setdefault(id(tensor), parameter)
    labels = tuple(mapping)
    owners: dict[str, Tensor] = {}
    for number, (label, places) in enumerate(mapping.items()):
        if not isinstance(label, str):
            raise UserError(f"the name of a unit must be a text, not {shown(label)}; units are {_HOW}.")
        if not isinstance(places, Mapping) or not places:
            raise UserError(f"unit {label!r} must be {{parameter name: index}} with one at least, not {shown(places)}.")
        for parameter, index in places.items():
            if parameter not in every:
                hint = near_miss(str(parameter), every)
                raise UserError(
                    f"unit {label!r} names {shown(parameter)}{hint}, which is no parameter; the network has: {listing(every)}."
                )
            tensor = every[parameter]
            if not tensor.is_floating_point():
                raise UserError(
                    f"unit {label!r} names {parameter!r}, whose weights are no real numbers and cannot be masked."
                )
            own = first[id(tensor)]
            owner = owners.setdefault(own, torch.full(tensor.shape, -1, dtype=torch.int64, device="cpu"))
            places_of = places_at(f"unit {label!r}", parameter, tuple(tensor.shape), index)
            taken = owner.reshape(-1)[places_of]
            if bool((taken >= 0).any()):
                other = labels[int(taken[taken >= 0][0])]
                whose = "itself" if other == label else f"unit {other!r}"
                raise UserError(
                    f"unit {label!r} owns weights of {parameter!r} that {whose} owns too; units of one mapping must not overlap "
                    "(give several mappings in a list for several levels)."
                )
            owner.view(-1)[places_of] = number
    parts = tuple(Part(parameter, _narrow(owner)) for parameter, owner in owners.items())
    return Group(name, "unit", "", labels, parts, (parts[0].parameter,))


def _narrow(owner: Tensor) -> Tensor:
    """Return owners without the dimensions that do not matter."""
    for dim in range(owner.dim()):
        first = owner.narrow(dim, 0, 1)
        if torch.equal(owner, first.expand_as(owner)):
            owner = first
    return owner.clone()
