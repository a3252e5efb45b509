"""What the claims about the pull on masks are measured by: numbers over a sweep of beta."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from claim_measures import LEARNED, Beside, Measured, worst
from cubes_of_studies import POOLED, Network, Values
from shared_weights import pair


def _beta(network: Network) -> tuple[list[float], Values]:
    """Return the betas, ascending, and per beta and seed the worse of both functions' own accuracies."""
    found = network.array("scores/accuracy")
    assert found is not None
    if POOLED not in found.dims:
        return [], np.empty((0, network.cube.sizes["seed"]))
    betas = sorted(float(b) for b in found[POOLED].values)
    own = [worst([found.sel({POOLED: b, "stage": s, "split": s}).values for s in pair(network)], True) for b in betas]
    return betas, np.asarray(own)


def holds(network: Network, _: Sequence[Network]) -> Measured:
    """Decades of beta over which both masks do their function."""
    betas, own = _beta(network)
    values = np.full(network.cube.sizes["seed"], np.nan)
    for seed in range(len(values)):
        if betas and np.isfinite(own[:, seed]).all():
            good = [b for b, score in zip(betas, own[:, seed], strict=True) if score >= LEARNED]
            values[seed] = np.log10(good[-1] / good[0]) if good else 0.0
    return Measured(values)


def falls(network: Network, _: Sequence[Network]) -> Measured:
    """By how much the shared share falls from the smallest to the largest beta."""
    betas, found = _beta(network)[0], network.array("overlap/shared_total")
    if not betas or found is None:
        return Measured(np.full(network.cube.sizes["seed"], np.nan))
    ends = [
        np.mean([found.sel({POOLED: b, "stage": s}).values for s in pair(network)], axis=0)
        for b in (betas[0], betas[-1])
    ]
    by_chance = network.array("overlap/shared_chance_total")
    beside = [Beside(f"shared at beta {betas[0]:g}", ends[0]), Beside(f"shared at beta {betas[-1]:g}", ends[1])]
    if by_chance is not None:
        expected = [
            np.mean([by_chance.sel({POOLED: b, "stage": s}).values for s in pair(network)], axis=0)
            for b in (betas[0], betas[-1])
        ]
        beside += [Beside("chance at these", (expected[0] + expected[1]) / 2)]
    return Measured(ends[0] - ends[1], beside)
