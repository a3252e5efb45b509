"""One fit of one method to one function of a known network, and what is measured of it."""

from __future__ import annotations

import time
from typing import Any

import scores
import torch
from methods import BATCH, MOST_FUNCTIONS, Method

import modhook
from modhook_tasks import known

WITHIN = (0.005, 0.01)
"""Shares of the accuracy that the smallest cut may lose, on the held-out items that choose it."""


def functions(network: str) -> tuple[str, ...]:
    """Return the functions of a network that are asked for."""
    return tuple(known.build(network).functions)[: 1 if "/" in network else MOST_FUNCTIONS]


def measured(network: str, function: str, method: Method, seed: int) -> dict[str, Any]:
    """Fit masks, and return all that is measured of them; `seed` draws batches and noise (and what is random in a control)."""
    built = known.build(network, seed if "/" in network else 0)
    wanted = built.functions[function]
    batches, density = wanted.batches(seed=seed, size=BATCH), method.setting.get("density")
    begun = time.process_time()
    fit = modhook.fit_masks(
        built.model,
        batches,
        wanted.loss,
        sampler=method.sampler(method.options),
        seed=seed,
        progress=False,
        **({**method.setting, "density": 0.5} if issubclass(method.sampler, modhook.Ranking) else method.setting),
    )
    seconds = time.process_time() - begun
    masks = {} if fit.threshold is None else {"threshold": fit.masks if density is not None else fit.threshold}
    if "/" in network:
        masks["best"] = best(fit, wanted)
    else:
        masks |= {f"within {w}": fit.smallest([scores.choosing(wanted)], wanted.score, w) for w in WITHIN}
    found: dict[str, Any] = {
        "seconds": seconds,
        "unmasked": scores.accuracies(built, wanted, None)["accuracy"],
        "weights": sum(m.numel() for m in fit.logits.values()),
        "masks": {
            name: scores.of_mask(built, wanted, mask) | scores.accuracies(built, wanted, mask) for name, mask in masks.items()
        },
    }
    if built.truth.owner is not None:
        assert built.truth.necessary is not None
        owner = {n: built.truth.owner[n] for n in fit.logits}
        own = {n: o == wanted.number for n, o in owner.items()}
        used = {n: built.model.get_parameter(n).detach() != 0 for n in owner}
        somebodys = {n: (o > 0) & used[n] for n, o in owner.items()}
        found["area_necessary"] = scores.area(fit.logits, built.truth.necessary[function])
        found["area_owner"] = scores.area(fit.logits, own, somebodys)
    return found


def best(fit: modhook.Fit, function: known.structure.Function) -> modhook.Masks:
    """Return the smallest of the cuts that score best on the items that choose: what a method makes of a network without a module."""
    curve = fit.curve([scores.choosing(function)], function.score, points=40)
    return fit.cut(keep=int(curve["kept"].values[curve["score"].values.argmax()]))


torch.set_num_threads(1)
