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
    if not betas:
        return Measured(np.full(network.cube.sizes["seed"], np.nan))
    control = np.array([[one.at("scores/accuracy", stage="control", split=s) for s in pair(network)] for one in network.each.values()])
    least = np.minimum(own, control.min(axis=1))  # (betas, seeds)

    def reading() -> str:
        good = [f"{beta:g}" for beta, row in zip(betas, own, strict=True) if (row >= LEARNED).all()]
        fails = [
            f"{100 * mean(row.min(axis=0)):.1f} % at {beta:g}"
            for beta, row in zip(betas, control, strict=True)
            if mean(row.min(axis=0)) < LEARNED
        ]
        text = (
            f"In every seed both are so at {', '.join(good) or 'no beta'}, of {', '.join(f'{b:g}' for b in betas)}; nothing was computed "
            "between these nor beyond, so that the range may be wider, and seeds that have the same of them give the interval no width."
        )
        return f"{text} The mask of the whole task does the worse operation on {', '.join(fails)}." if fails else text

    return Measured(_decades(betas, own), [Beside("with the mask of the whole task as well", _decades(betas, least))], reading=reading)


def _decades(betas: Sequence[float], scores: Values) -> Values:
    """Return per seed over how many decades of beta a score, (betas, seeds), is good; NaN where one is missing."""
    known = np.isfinite(scores).all(axis=0)
    return np.array([_longest(betas, scores[:, i] >= LEARNED) if known[i] else np.nan for i in range(scores.shape[1])])


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
    """Say what the mean of both functions hides: one that does not fall, masks that fail or had not settled, and chance."""
    weak, strong = network.each[first], network.each[last]

    def ends(name: str, **where: str) -> tuple[float, float]:
        return mean(weak.at(name, **where)), mean(strong.at(name, **where))

    functions = pair(network)
    shared = {s: ends("overlap/shared_total", stage=s) for s in functions}
    told = []
    if any(after >= before for before, after in shared.values()):
        each = ", ".join(f"of {s} {100 * before:.1f} and {100 * after:.1f} %" for s, (before, after) in shared.items())
        told.append(f"Shared are, at beta {first:g} and {last:g}, {each}: it does not fall for both.")
    failed = {s: right for s in functions if (right := mean(strong.at("scores/accuracy", stage=s, split=s))) < LEARNED}
    if failed:
        each = ", ".join(f"{s} on {100 * right:.1f} %" for s, right in failed.items())
        told.append(f"At beta {last:g} a mask does its function no more ({each}).")
        betas, own = _beta(network)
        works = [beta for beta, row in zip(betas, own, strict=True) if (row >= LEARNED).all()]
        if len(works) > 1:
            before, after = (
                mean(np.mean([network.each[b].at("overlap/shared_total", stage=s) for s in functions], axis=0))
                for b in (works[0], works[-1])
            )
            told.append(f"From {works[0]:g} to {works[-1]:g}, where both work, it falls by {100 * (before - after):.1f} %.")
    if any("moving: " in str(text) for text in np.ravel(weak.array("history/trust"))):
        told.append(f"At {first:g} masks were still changing (below the table by beta), so that their sizes belong to the steps as well.")
    both = {"stage": functions[0], "other": functions[1]}
    iou, chance = ends("overlap/iou_total", **both), ends("overlap/iou_chance_total", **both)
    expected = [mean(np.mean([one.at("overlap/shared_chance_total", stage=s) for s in functions], axis=0)) for one in (weak, strong)]
    above = [np.mean([x[i] for x in shared.values()]) - expected[i] for i in (0, 1)]
    if iou[1] / chance[1] > iou[0] / chance[0]:
        told.append(
            f"IoU is {iou[0]:.2f} and {iou[1]:.2f}, {iou[0] / chance[0]:.1f} and {iou[1] / chance[1]:.1f} times that of masks drawn "
            f"evenly; shares minus theirs are {100 * above[0]:.1f} and {100 * above[1]:.1f} %: beside chance, whether masks share less "
            "depends on the measure."
        )
    return " ".join(told)
