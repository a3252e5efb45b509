"""Masks that are learned among some of the weights: the others are gone before the first step, and stay so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modhook.errors import UserError
from modhook.masks import Masks
from modhook.plugin.interfaces import Ranking, Sampler

GONE = -30.0
"""The logit of a weight that no sample keeps: its keep-probability is 1e-13, and its gradients are below what Adam's epsilon lets move."""


def among_only(logits: dict[str, Tensor], among: Masks | None) -> dict[str, Tensor]:
    """Return starting logits with `GONE` where `among` keeps nothing; parameters that it does not name stay as they are."""
    if among is None:
        return logits
    return {n: torch.where(among[n].to(v.device), v, GONE) if n in among else v for n, v in logits.items()}


def refuse_among(among: Masks | None, names: tuple[str, ...], sampler: Sampler, density: Any) -> None:
    """Raise `UserError` where masks cannot be learned among some of the weights."""
    if among is None:
        return
    kind = type(sampler).__name__
    if isinstance(sampler, Ranking):
        raise UserError(f"{kind} ranks weights and learns nothing, so not among some of them either; leave among= away.")
    if density is not None or sampler.holds_density:
        what = f"{kind} holds" if density is None else "density= holds"
        raise UserError(f"{what} a density of all weights, which does not go with among=; ask for the size by within= instead.")
    if all(n in among and not bool(among[n].any()) for n in names):
        raise UserError("among= keeps none of the weights that are to be learned, so there is nothing to learn.")


def movable(logits: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the logits of weights that are not gone, parameter by parameter; all of them where every one is."""
    found = [v[v > GONE] for v in (logit.detach() for logit in logits.values())]
    return found if any(f.numel() for f in found) else [logit.detach() for logit in logits.values()]
