"""Whether masks of a density that was asked for have it: what is kept, and what the samples kept on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from methods import BATCH

import modhook
from modhook_plugins.samplers.continuous_sparsification import ContinuousSparsification
from modhook_plugins.samplers.gumbel import Gumbel
from modhook_plugins.samplers.hard_concrete import HardConcrete
from modhook_plugins.samplers.rankings import IntegratedGradients
from modhook_plugins.samplers.top_k import TopK
from modhook_tasks import known

NETWORKS = ("welded_fnn", "frac_prevs+hist")
DENSITIES = (0.02, 0.1, 0.3)
SAMPLERS: Mapping[str, type[modhook.Sampler]] = {
    "gumbel": Gumbel,
    "hard_concrete": HardConcrete,
    "continuous_sparsification": ContinuousSparsification,
    "top_k": TopK,
    "integrated_gradients": IntegratedGradients,
}
SETTING: dict[str, Any] = {"steps": 120, "lr": 0.05, "seed": 0, "progress": False}


def asked() -> Iterator[tuple[str, str, float]]:
    """Yield sampler, network, density."""
    for sampler in SAMPLERS:
        for network in NETWORKS:
            yield from ((sampler, network, density) for density in DENSITIES)


def measured(sampler: str, network: str, density: float) -> dict[str, Any]:
    """Return how many weights were asked for and are kept, and the share that samples keep at the end (NaN where none are drawn)."""
    built = known.build(network)
    function = next(iter(built.functions.values()))
    drawn = SAMPLERS[sampler]()
    fit = modhook.fit_masks(
        built.model, function.batches(seed=0, size=BATCH), function.loss, sampler=drawn, density=density, **SETTING
    )
    logits = torch.cat([v.flatten() for v in fit.logits.values()]).double()
    held = float("nan")
    if drawn.holds_density:
        assert fit.threshold is not None
        held = fit.threshold.kept() / logits.numel()
    elif not isinstance(drawn, modhook.Ranking):
        held = float(drawn.keep_probability(logits).mean())
    return {
        "sampler": sampler,
        "network": network,
        "density": density,
        "wanted": density * logits.numel(),
        "kept": fit.masks.kept(),
        "held": held,
    }
