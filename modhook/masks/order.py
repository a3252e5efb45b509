"""Weights in the order in which they are needed, and masks as cuts through that order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from modhook.errors import MaskError, UserError
from modhook.values.arguments import checked


class Order:
    """All weights of some parameters, from the largest logit to the smallest.

    Equal logits are in the order of the parameters and of their elements, so that every cut is one and the same each time.

    Args:
        logits: {name: tensor of the parameter's shape}; a larger number is a weight that is needed more.

    Raises:
        MaskError: nothing to order, or a logit that is no number.
    """

    def __init__(self, logits: Mapping[str, Tensor]) -> None:
        if not sum(value.numel() for value in logits.values()):
            raise MaskError("there is nothing to cut: no logit was learned.")
        for name, value in logits.items():
            if value.isnan().any():
                raise MaskError(f"the logits of {name!r} hold NaN, which has no place in an order; learn them again.")
        self.logits = {name: value.detach().cpu() for name, value in logits.items()}

    @property
    def size(self) -> int:
        """Number of weights, N."""
        return sum(value.numel() for value in self.logits.values())

    @cached_property
    def places(self) -> Tensor:
        """Positions of the weights in the parameters laid end to end, the most needed first: (N,) int64."""
        flat = torch.cat([value.reshape(-1) for value in self.logits.values()])  # (N,)
        return torch.argsort(flat, descending=True, stable=True)

    def count(self, *, density: float | None = None, keep: int | None = None) -> int:
        """Return how many weights a share or a number asks for. Raises `UserError`."""
        if (density is None) == (keep is None):
            how = "none is given" if density is None else "not both"
            raise UserError(
                f"a cut takes either density= (a share above 0 to 1) or keep= (a number of weights); {how}."
            )
        if keep is not None:
            return int(checked("keep", keep, Annotated[int, Ge(0), Le(self.size)]))
        return max(1, round(checked_density(density) * self.size))

    def cut(self, count: int) -> dict[str, Tensor]:
        """Return the mask of the first `count` weights: {name: bool tensor}."""
        flat = torch.zeros(self.size, dtype=torch.bool, device="cpu")
        flat[self.places[:count]] = True
        parts = torch.split(flat, [value.numel() for value in self.logits.values()])
        return {n: part.view(value.shape) for (n, value), part in zip(self.logits.items(), parts, strict=True)}

    def sizes(self, points: int) -> list[int]:
        """Return about `points` sizes from 1 to N, evenly apart on a logarithmic scale; fewer where they fall together."""
        points = checked("points", points, Annotated[int, Ge(2)])
        top = math.log(self.size)
        return sorted({round(math.exp(top * i / (points - 1))) for i in range(points)})


def smallest_enough(measured: Callable[[int], float], sizes: Iterable[int], goal: float) -> int | None:
    """Return the smallest number of weights found whose cut scores at least `goal`; None where none of `sizes` does.

    The score may rise and fall with the size (a shuffled network as a whole knows nothing), so `sizes` are tried from the smallest
    upwards; between the first that scores enough and the one before it (or none at all) the edge is found by bisection.
    """
    low = -1
    for high in sorted(set(sizes)):
        if measured(high) >= goal:
            break
        low = high
    else:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measured(middle) >= goal else (middle, high)
    return high


def checked_density(density: Any) -> float:
    """Return a share of weights as a float. Raises `UserError` unless it is above 0 and at most 1."""
    return float(checked("density", density, Annotated[float, Gt(0), Le(1)]))


def areas(
    density: npt.NDArray[np.float64], score: npt.NDArray[np.float64], nothing: float, whole: float
) -> dict[str, float]:
    """Return the areas over the share of kept weights that the MIB benchmark reports (Mueller et al. 2025, section 3.2).

    Args:
        density: shares of kept weights, rising: (n,).
        score: the score of the cut of each size: (n,).
        nothing, whole: the score with no weight and with all weights.

    Returns:
        With f = (score - nothing) / (whole - nothing), by trapezoids over the share k from 0 (where f is 0) to the largest:
        `cpr`, the integral of f (larger is better), and `cmd`, the integral of |1 - f| (smaller is better). NaN where the
        score with no weight is that with all.
    """
    if whole == nothing:
        return {"cpr": math.nan, "cmd": math.nan}
    k = np.concatenate([[0.0], density])  # (n + 1,)
    f = np.concatenate([[0.0], (score - nothing) / (whole - nothing)])
    return {"cpr": float(np.trapezoid(f, k)), "cmd": float(np.trapezoid(np.abs(1 - f), k))}
