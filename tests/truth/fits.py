"""One fit of one method to one function of a known network, and what is measured of it."""

from __future__ import annotations

import time
from typing import Any

import scores
import torch
from methods import BATCH, MOST_FUNCTIONS, SEEN, Method
from variants import LateMean

import modhook
from modhook_tasks import known


def functions(network: str) -> tuple[str, ...]:
    """Return the functions of a network that are asked for."""
    return tuple(known.build(network).functions)[: 1 if "/" in network else MOST_FUNCTIONS]


def measured(network: str, function: str, method: Method, seed: int) -> dict[str, Any]:
    """Fit masks, and return all that is measured of them; `seed` draws batches and noise (and what is random in a control)."""
    built = known.build(network, seed if "/" in network else 0)
    wanted, begun = built.functions[function], time.process_time()
    masks: dict[str, modhook.Masks] = {}
    setting, density = dict(method.setting), method.setting.get("density")
    if method.first is not None:
        ranked = fitted(built.model, wanted, method.first(), {**SEEN, "density": 0.5}, seed)
        masks["first"] = setting["among"] = cut(network, ranked, wanted, method.within)
    if issubclass(method.sampler, modhook.Ranking):
        setting["density"] = 0.5
    late = LateMean(setting["steps"]) if method.averaged else None
    sampler = None if method.usual else method.sampler(method.options)
    fit = fitted(built.model, wanted, sampler, {**setting, "callback": late}, seed)
    fit = fit if late is None else late.of(fit)
    seconds = time.process_time() - begun
    if method.usual:
        masks |= {"loss": fit.masks, **({} if fit.among is None else {"first": fit.among})}
    if fit.threshold is not None:
        masks["threshold"] = fit.masks if density is not None else fit.threshold
    masks["cut"] = cut(network, fit, wanted, method.within)
    if method.first is not None and masks["first"].kept() < masks["cut"].kept() and "/" not in network:
        masks["cut"] = masks["first"]  # which `fit_masks(within=...)` looks at, too
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


def fitted(
    model: torch.nn.Module, function: known.structure.Function, sampler: modhook.Sampler | None, setting: dict[str, Any], seed: int
) -> modhook.Fit:
    """Return the fit of one sampler to one function."""
    return modhook.fit_masks(
        model, function.batches(seed=seed, size=BATCH), function.loss, sampler=sampler, seed=seed, progress=False, **setting
    )


def cut(network: str, fit: modhook.Fit, function: known.structure.Function, within: float) -> modhook.Masks:
    """Return the smallest cut that loses no more than `within`; in a network without a module, the best one."""
    return best(fit, function) if "/" in network else fit.smallest([scores.choosing(function)], function.score, within)


def best(fit: modhook.Fit, function: known.structure.Function) -> modhook.Masks:
    """Return the smallest of the cuts that score best on the items that choose: what a method makes of a network without a module."""
    curve = fit.curve([scores.choosing(function)], function.score, points=40)
    return fit.cut(keep=int(curve["kept"].values[curve["score"].values.argmax()]))


torch.set_num_threads(1)
