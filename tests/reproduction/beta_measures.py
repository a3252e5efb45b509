"""What the claims about the pull on masks are measured by: numbers over a sweep of beta."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from claim_measures import LEARNED, Beside, Measured, mean, worst
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
            values[seed] = _longest(betas, own[:, seed] >= LEARNED)

    def reading() -> str:
        good = [f"{beta:g}" for beta, row in zip(betas, own, strict=True) if (row >= LEARNED).all()]
        return (
            f"In every seed both are so at {', '.join(good) or 'no beta'}, of {', '.join(f'{b:g}' for b in betas)}; between these "
            "nothing was computed, so that the range may be wider than the number."
        )

    return Measured(values, reading=reading)


def _longest(betas: Sequence[float], good: Values) -> float:
    """Return the decades of the widest range of neighbouring betas that are all good."""
    widest, first = 0.0, None
    for beta, one in zip(betas, good, strict=True):
        first = None if not one else beta if first is None else first
        widest = widest if first is None else max(widest, float(np.log10(beta / first)))
    return widest


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
        beside += [
            Beside(f"by chance at beta {b:g}", np.mean([by_chance.sel({POOLED: b, "stage": s}).values for s in pair(network)], axis=0))
            for b in (betas[0], betas[-1])
        ]
    return Measured(ends[0] - ends[1], beside, reading=lambda: _read(network, betas[0], betas[-1]))


def _read(network: Network, first: float, last: float) -> str:
    """Say what the mean of both functions hides: one that does not fall, one that fails, and what chance falls by."""
    weak, strong = network.each[first], network.each[last]

    def ends(name: str, **where: str) -> tuple[float, float]:
        return mean(weak.at(name, **where)), mean(strong.at(name, **where))

    functions = pair(network)
    shared = {s: ends("overlap/shared_total", stage=s) for s in functions}
    told = []
    if any(after >= before for before, after in shared.values()):
        each = ", ".join(f"of {s} {100 * before:.1f} and {100 * after:.1f} %" for s, (before, after) in shared.items())
        told.append(f"It does not fall for both: at beta {first:g} and {last:g} are shared {each}.")
    failed = {s: right for s in functions if (right := mean(strong.at("scores/accuracy", stage=s, split=s))) < LEARNED}
    if failed:
        each = ", ".join(f"{s} on {100 * right:.1f} %" for s, right in failed.items())
        told.append(f"At beta {last:g} a mask does its function no more ({each}), and what it shares is not what a working one does.")
    both = {"stage": functions[0], "other": functions[1]}
    iou, chance = ends("overlap/iou_total", **both), ends("overlap/iou_chance_total", **both)
    if iou[1] / chance[1] > iou[0] / chance[0]:
        told.append(
            f"IoU is {iou[0]:.2f} and {iou[1]:.2f}, {iou[0] / chance[0]:.1f} and {iou[1] / chance[1]:.1f} times that of masks drawn "
            "evenly: beside chance, masks share more under the stronger pull, not less."
        )
    return " ".join(told)
