"""Masks that are learned among some of the weights, or units: the others are gone before the first step, and stay so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.masks import Masks
from modhook.masks.granular import Masked
from modhook.plugin.interfaces import Ranking, Sampler
from modhook.unit.weights import pooled

GONE = -30.0
"""The logit of a weight that no sample keeps: its keep-probability is 1e-13, and its gradients are below what Adam's epsilon lets move."""


def per_entry(among: Masks | None, wanted: Masked, model: nn.Module, *, unnamed: bool = True) -> dict[str, Tensor] | None:
    """Return which of the entries of a fit masks keep, {name: bool tensor of its logits' shape}, of those that they are about.

    Masks of the same units say it themselves. Of any others a unit is kept if one of its weights is, of the parameters that they
    name, and a weight if they keep it; `unnamed` says whether units are that have none in these parameters.
    """
    if among is None:
        return None
    weights, groups = among._on(model), dict(among.units or {})
    found = {n: weights[n] for n in wanted.weights if n in weights}
    for group in wanted.groups:
        named = attrs.evolve(group, parts=tuple(p for p in group.parts if p.parameter in weights))
        if group.name in groups and group.same(groups[group.name]):
            found[group.name] = among[group.name]
        elif named.parts:
            kept = pooled(named, {n: m.double() for n, m in weights.items()})
            found[group.name] = (kept > 0) | ((named.weights(weights) == 0) & unnamed)
    return found


def among_only(logits: dict[str, Tensor], among: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return starting logits with `GONE` where `among` keeps nothing; parameters that it does not name stay as they are."""
    if among is None:
        return logits
    return {n: torch.where(among[n].to(v.device), v, GONE) if n in among else v for n, v in logits.items()}


def outside(masks: Mapping[str, Tensor], among: Mapping[str, Tensor] | None) -> int:
    """Return how many entries masks keep that they were not learned among."""
    return sum(int((masks[n].cpu() & ~m.cpu()).sum()) for n, m in (among or {}).items() if n in masks)


def refuse_among(
    among: Mapping[str, Tensor] | Ranking | None, names: tuple[str, ...], sampler: Sampler, density: Any
) -> None:
    """Raise `UserError` where masks cannot be learned among some of the weights."""
    if among is None:
        return
    kind = type(sampler).__name__
    if isinstance(sampler, Ranking):
        raise UserError(f"{kind} ranks weights and learns nothing, so not among some of them either; leave among= away.")
    if density is not None or sampler.holds_density:
        what = f"{kind} holds" if density is None else "density= holds"
        raise UserError(f"{what} a density of all weights, which does not go with among=; ask for the size by within= instead.")
    if isinstance(among, Mapping) and all(n in among and not bool(among[n].any()) for n in names):
        raise UserError("among= keeps none of the weights that are to be learned, so there is nothing to learn.")


def movable(logits: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the logits of weights that are not gone, parameter by parameter; all of them where every one is."""
    values = [logit.detach() for logit in logits.values()]
    found = [v if v.numel() and float(v.min()) > GONE else v[v > GONE] for v in values]
    return found if any(f.numel() for f in found) else values
