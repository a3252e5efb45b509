"""What is masked: weights, units, or both, after patterns and what was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import PatternError, UserError, listing
from modhook.masks.masks import Masks
from modhook.masks.select import select
from modhook.unit.find import levels_of
from modhook.unit.group import Group


@attrs.frozen(eq=False)
class Masked:
    """The entries of masks: groups of units, then weights by parameter.

    Attributes:
        groups: the units. weights: the parameters whose weights have a mask each, by first name.
    """

    groups: tuple[Group, ...]
    weights: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries."""
        return (*(g.name for g in self.groups), *self.weights)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters whose weights the masks are about."""
        return tuple(dict.fromkeys([*(p for g in self.groups for p in g.parameters), *self.weights]))

    @property
    def units(self) -> dict[str, Group]:
        """The groups by name."""
        return {g.name: g for g in self.groups}

    def without(self, names: Iterable[str]) -> Masked:
        """Return the entries but for these."""
        gone = set(names)
        left = tuple(g for g in self.groups if g.name not in gone)
        return Masked(left, tuple(n for n in self.weights if n not in gone))

    def logit_shapes(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return by name what the logits of each entry are like: a parameter, or a number per unit."""
        found: dict[str, Tensor] = dict(parameters)
        for group in self.groups:
            first = parameters[group.parts[0].parameter]
            dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
            found[group.name] = torch.ones(len(group), dtype=dtype, device=first.device)
        return found

    def whole(self, model: nn.Module, kept: bool, fixed: Masks | None = None) -> Masks:
        """Return masks over these entries that keep everything or nothing, and those of `fixed` as they are."""
        like = self.logit_shapes(dict(model.named_parameters(remove_duplicate=False)))
        return self.masks({**{n: torch.full(like[n].shape, kept, device="cpu") for n in self.names}, **(fixed or {})}, model, fixed)

    def masks(self, masks: Mapping[str, Tensor], model: nn.Module, fixed: Masks | None = None) -> Masks:
        """Return masks over these entries, and over those of `fixed`."""
        return Masks(masks, model, units={**self.units, **({} if fixed is None else fixed._groups)})


def masked_by(model: nn.Module, units: Any, include: Any = None, exclude: Any = None) -> Masked:
    """Return what `units`, `include` and `exclude` ask for; None are the default patterns.

    Raises:
        UserError: no such units. PatternError: a pattern that matches nothing, or that leaves nothing.
    """
    if isinstance(units, str) and units == "weight":
        return Masked((), select(model, include, exclude))
    levels = levels_of(model, units)
    patterned = include is not None or exclude is not None
    chosen = (
        select(model, include, exclude)
        if levels.weights or patterned or any(g.kind != "unit" for g in levels.groups)
        else ()
    )
    groups = tuple(g for g in (_chosen(g, set(chosen), patterned) for g in levels.groups) if g is not None)
    if levels.groups and not groups:
        homes = [n for g in levels.groups for n in g.home]
        raise PatternError(
            f"the patterns leave no units: none of the weights that make them is chosen, which are {listing(homes)}."
        )
    masked = Masked(groups, chosen if levels.weights else ())
    if not masked.names:
        raise UserError("there is nothing to mask: no units were given.")
    return masked


def _chosen(group: Group, chosen: set[str], patterned: bool) -> Group | None:
    """Return the units of a group that patterns choose; None for none of them."""
    if group.kind == "unit" and not patterned:
        return group
    if group.kind in ("block", "layer"):
        return group.subset([i for i, name in enumerate(group.home) if name in chosen])
    return group if set(group.home) <= chosen else None
