"""Units that a user gives as a mapping {unit: {parameter: index}}, checked against the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modhook.errors import UserError, listing, near_miss
from modhook.unit.group import Group, Part
from modhook.values.arguments import shown

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
            places_of = _places(label, parameter, tuple(tensor.shape), index)
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


def _places(label: str, name: str, shape: tuple[int, ...], index: Any) -> Tensor:
    """Return the places of an index in the flat tensor: (n,)."""
    where = f"unit {label!r}: the index {_written(index)} of {name!r}"
    every = torch.arange(int(np.prod(shape)), device="cpu").view(shape)
    parts = index if isinstance(index, tuple) else (index,)
    try:
        keys = tuple(map(_key, parts))
    except (TypeError, ValueError, RuntimeError):
        raise _no_index(where) from None
    if any(isinstance(k, str | bytes | float | Mapping) or (isinstance(k, Tensor) and k.is_floating_point()) for k in keys):
        raise _no_index(where)
    key = keys if isinstance(index, tuple) else keys[0]
    _bounds(where, shape, key)
    try:
        found = every[key].reshape(-1)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where} leaves the tensor, whose shape is {shape}: {str(error).partition(chr(10))[0]}."
        ) from None
    if not len(found):
        raise UserError(f"{where} takes no weight of it; its shape is {shape}.")
    if len(set(found.tolist())) < len(found):
        raise UserError(f"{where} takes a weight twice.")
    return found


def _no_index(where: str) -> UserError:
    return UserError(f"{where} is none; give a number, a slice, a list of numbers, a boolean mask, `...`, or a tuple of these.")


def _key(index: Any) -> Any:
    if isinstance(index, np.ndarray):
        index = torch.from_numpy(index)
    if isinstance(index, list | range):
        index = torch.tensor(list(index))
    return index.cpu() if isinstance(index, Tensor) else index


def _bounds(where: str, shape: Sequence[int], key: Any) -> None:
    """Slices that leave a tensor are cut by Python without a word; here they are mistakes."""
    keys = key if isinstance(key, tuple) else (key,)
    used = sum(
        k.dim() if isinstance(k, Tensor) and k.dtype == torch.bool else 1
        for k in keys
        if k is not Ellipsis and k is not None
    )
    dim = 0
    for k in keys:
        if k is Ellipsis:
            dim += len(shape) - used
            continue
        if k is None or isinstance(k, bool):
            raise UserError(f"{where} makes a new dimension; give places of the tensor.")
        if isinstance(k, slice) and dim < len(shape):
            for end in (k.start, k.stop):
                if end is not None and (not hasattr(end, "__index__") or not -shape[dim] <= int(end) <= shape[dim]):
                    raise UserError(f"{where} leaves the tensor, whose shape is {tuple(shape)}.")
        dim += k.dim() if isinstance(k, Tensor) and k.dtype == torch.bool else 1


def _narrow(owner: Tensor) -> Tensor:
    """Return owners without the dimensions that do not matter."""
    for dim in range(owner.dim()):
        first = owner.narrow(dim, 0, 1)
        if torch.equal(owner, first.expand_as(owner)):
            owner = first
    return owner.clone()


def _written(index: Any) -> str:
    if isinstance(index, slice):
        ends = (
            [str(e) for e in (index.start, index.stop)]
            if index.step is None
            else [str(index.start), str(index.stop), str(index.step)]
        )
        return f"slice({', '.join(ends)})"
    if isinstance(index, tuple):
        return f"({', '.join(_written(i) for i in index)})"
    return "..." if index is Ellipsis else shown(index)
