"""The names of parameters: a tied weight is one parameter with several, and the first of them counts."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modhook.errors import MaskError
from modhook.network.scope import parameter_names

if TYPE_CHECKING:
    from torch import Tensor, nn


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return {further name of a tied parameter: its first name}; nothing for a network without tied weights."""
    return {name: first for name, first in parameter_names(model).items() if name != first}


def remembered(model: nn.Module) -> weakref.ref[nn.Module] | None:
    """Return a reference to a network that does not keep it; None if there can be none."""
    try:
        return weakref.ref(model)
    except TypeError:  # a class with __slots__
        return None


def one_per_parameter(given: Mapping[str, Tensor], aliases: Mapping[str, str], what: str) -> dict[str, Tensor]:
    """Return tensors by the first name of their parameter; `aliases` maps further names to it.

    Raises:
        MaskError: two names of one parameter have different tensors; `what` says which tensors: "init".
    """
    found: dict[str, Tensor] = {}
    named: dict[str, str] = {}
    for name, tensor in given.items():
        first = aliases.get(name, name)
        if first in found and not _equal(found[first], tensor):
            raise MaskError(
                f"{named[first]!r} and {name!r} are two names of one tied parameter, but {what} gives them different tensors; "
                "give one of them."
            )
        if first not in found:
            found[first], named[first] = tensor, name
    return found


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not (hasattr(one, "shape") and hasattr(other, "shape") and one.shape == other.shape):
        return False
    return bool((one.cpu() == other.cpu()).all())
