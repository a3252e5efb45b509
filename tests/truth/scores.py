"""How right a ranking and a mask are, against what is known about a network's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

import modhook
from modhook_tasks.known.structure import Function, Known

Chosen = Mapping[str, Tensor]


def area(ranking: Chosen, positive: Chosen, among: Chosen | None = None) -> float:
    """Return the area under the ROC curve: the share of pairs, of a positive weight and another, that are in the right order.

    An equal pair counts half. NaN without a pair.

    Args:
        ranking: {parameter: logits}; a larger one is a weight that is needed more.
        positive: {parameter: bool}, the weights that should come first.
        among: {parameter: bool}, the weights that count; default: all.
    """
    values, labels = flat(ranking, ranking).double(), flat(positive, ranking)
    if among is not None:
        counted = flat(among, ranking)
        values, labels = values[counted], labels[counted]
    yes, no = values[labels], values[~labels]
    if not len(yes) or not len(no):
        return math.nan
    ordered = no.sort().values
    below = torch.searchsorted(ordered, yes, right=False).double()
    equal = torch.searchsorted(ordered, yes, right=True).double() - below
    return float((below + equal / 2).mean() / len(no))


def flat(chosen: Chosen, names: Iterable[str]) -> Tensor:
    """Return tensors end to end, of the parameters named: (N,)."""
    return torch.cat([chosen[name].flatten() for name in names])


def of_mask(known: Known, function: Function, masks: modhook.Masks) -> dict[str, float]:
    """Return size, precision, recall and foreign share of a mask.

    `kept`: weights; `idle`: the share of these that are zero in the network anyway, and so change nothing. With an owner of each
    weight: `precision` (the share of the kept weights that are not zero that the function owns), `recall` (the share of the
    necessary weights that is kept), `foreign` (the share of the kept weights that are not zero that another function owns),
    `of_foreign` (the share of all weights of other functions that is kept), `of_necessary` and `of_minimal` (kept weights that
    are not zero over the number of necessary weights, and over the small mask's).
    """
    names = list(masks)
    kept = flat(masks, names)
    live = torch.cat([known.model.get_parameter(n).detach().flatten() != 0 for n in names])
    used = kept & live
    found = {"kept": float(kept.sum()), "idle": _share(kept & ~live, kept), "density": float(kept.double().mean())}
    if known.truth.owner is None:
        return found
    owner = flat(known.truth.owner, names)
    others = (owner > 0) & (owner != function.number)
    assert known.truth.necessary is not None
    necessary = flat(known.truth.necessary[function.name], names)
    found |= {
        "precision": _share(used & (owner == function.number), used),
        "recall": _share(necessary & kept, necessary),
        "foreign": _share(used & others, used),
        "of_foreign": _share(used & others, others),
        "of_necessary": float(kept.sum() / max(1, necessary.sum())),
    }
    if known.truth.minimal is not None:
        found["of_minimal"] = float(kept.sum() / max(1, flat(known.truth.minimal[function.name], names).sum()))
    return found


def accuracies(known: Known, function: Function, masks: modhook.Masks | None) -> dict[str, float]:
    """Return the accuracy on the items that chose no mask: under the mask, under its complement, and on the other functions."""
    found = {"accuracy": modhook.evaluate(known.model, masks, [unseen(function)], function.score)}
    if masks is not None:
        found["complement"] = modhook.evaluate(known.model, ~masks, [unseen(function)], function.score)
        others = [
            modhook.evaluate(known.model, masks, [unseen(other)], other.score)
            for other in known.functions.values()
            if other.name != function.name
        ][:OTHERS]
        if others:
            found["other"] = sum(others) / len(others)
    return found


OTHERS = 4
"""Other functions that are asked at most (a network of superposed features has 39)."""


def choosing(function: Function) -> dict[str, Any]:
    """Return the held-out items that choose the size of a mask: the first half."""
    return {name: tensor[: len(tensor) // 2] for name, tensor in function.test.items()}


def unseen(function: Function) -> dict[str, Any]:
    """Return the held-out items that choose nothing: the second half."""
    return {name: tensor[len(tensor) // 2 :] for name, tensor in function.test.items()}


def _share(some: Tensor, of: Tensor) -> float:
    total = int(of.sum())
    return float(some.sum() / total) if total else math.nan
