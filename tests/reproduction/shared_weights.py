"""Which weights two functions' masks share, and what masks that know nothing of each other would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from cubes_of_studies import Network, Values
from numpy.typing import NDArray

import modhook
from modhook import Masks
from modhook.errors import CubeError

Matrix = NDArray[np.float64]
_SWEEPS = 2_000


def pair(network: Network) -> tuple[str, str]:
    """Return the two functions of a study with two of them."""
    first, second = (s for s in network.stages if s not in ("unmasked", "control"))
    return first, second


def inner(network: Network) -> list[str]:
    """Return the matrices between the first and the last one: an LSTM's but those that see the input."""
    there, ends = _there(network), outer(network)
    return [n for n in there if n not in ends]


def outer(network: Network) -> list[str]:
    """Return the matrices that see the input, and the last one."""
    there = _there(network)
    return [*([n for n in there if n.endswith("weight_ih_l0")] or there[:1]), *there[-1:]]


def _there(network: Network) -> list[str]:
    names = [] if network.array("overlap/size") is None else [str(p) for p in network.cube["overlap"]["parameter"].values]
    return [n for n in names if np.isfinite(network.at("overlap/size", parameter=n)).any()]


def separate(network: Network) -> bool:
    """Return whether the two masks share no weight that sees the input or gives the output, in any seed."""
    a, b = pair(network)
    shared = np.asarray([network.at("overlap/intersection", stage=a, other=b, parameter=n) for n in outer(network)])
    known = shared[np.isfinite(shared)]
    return len(known) > 0 and not known.any()


def pooled(network: Network, parts: Sequence[str]) -> tuple[Values, Values]:
    """Return IoU of the two functions' masks over some matrices together, and what random masks of their sizes would have."""
    shared, first, second, by_chance = _counted(network, parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (first + second - shared), by_chance / (first + second - by_chance)


def smaller(network: Network, parts: Sequence[str]) -> Values:
    """Return IoMin over some matrices together: the share of the smaller mask's weights that the other has, too."""
    shared, first, second, _ = _counted(network, parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / np.minimum(first, second)


def _counted(network: Network, parts: Sequence[str]) -> tuple[Values, Values, Values, Values]:
    """Return how many weights of some matrices both masks keep, each of them, and both of random masks of their sizes."""
    a, b = pair(network)
    shared, first, second, by_chance = (np.zeros(network.cube.sizes["seed"]) for _ in range(4))
    for name in parts:
        kept = [network.at("overlap/kept", stage=s, parameter=name) for s in (a, b)]
        shared = shared + network.at("overlap/intersection", stage=a, other=b, parameter=name)
        first, second = first + kept[0], second + kept[1]
        by_chance = by_chance + kept[0] * kept[1] / network.at("overlap/size", parameter=name)
    return shared, first, second, by_chance


def by_neuron(network: Network, parts: Sequence[str]) -> Values:
    """Return the IoU to expect of masks that keep as many weights of each row and column of a matrix as the two do.

    Which neurons a mask uses says much of which weights it may keep. Masks are drawn apart from each other, and as evenly as the
    totals allow (maximum entropy); the IoU is the expected intersection over the expected union.
    """
    found = np.full(network.cube.sizes["seed"], np.nan)
    for at, masks in masks_of(network, pair(network)):
        shared = sum(expected_shared(*(matrix(m[name]) for m in masks)) for name in parts)
        both = sum(float(m[name].sum()) for m in masks for name in parts)
        found[at] = shared / (both - shared) if both > shared else np.nan
    return found


def masks_of(network: Network, stages: Sequence[str]) -> Iterator[tuple[int, list[Masks]]]:
    """Yield the place of each seed that has masks of these stages, and the masks."""
    for at, seed in enumerate(network.cube["seed"].values.tolist()):
        try:
            found = [modhook.masks_from(network.cube, seed, stage, **network.point) for stage in stages]
        except CubeError:  # a seed that is not done, a cube without masks
            continue
        yield at, found


def matrix(mask: Any) -> Matrix:
    """Return a mask (out, ...) as numbers, its further dimensions in one: (rows, columns)."""
    return np.asarray(mask.reshape(len(mask), -1).numpy(), dtype=np.float64)


def expected_shared(one: Matrix, other: Matrix) -> float:
    """Return how many weights two masks (rows, columns) are expected to share, given the totals of their rows and columns."""
    return float((likely(one) * likely(other)).sum())


def likely(mask: Matrix) -> Matrix:
    """Return each weight's probability (rows, columns) in the most even distribution of masks with this one's totals.

    Its odds are x_i y_j; x and y are found by taking turns until the totals are right to a thousandth of a weight.
    """
    rows, columns = mask.sum(1), mask.sum(0)
    r, c = np.flatnonzero(rows), np.flatnonzero(columns)
    found = np.zeros(mask.shape)
    if not len(r):
        return found
    x, y = rows[r] / np.sqrt(rows.sum()), columns[c] / np.sqrt(rows.sum())
    for _ in range(_SWEEPS):
        x = rows[r] / (y / (1 + np.outer(x, y))).sum(1)
        y = columns[c] / (x[:, None] / (1 + np.outer(x, y))).sum(0)
        odds = np.outer(x, y)
        chance = odds / (1 + odds)
        if np.abs(chance.sum(1) - rows[r]).max() < 1e-3:
            break
    found[np.ix_(r, c)] = chance
    return found
