"""Numbers measured with the paper's own code, and how far ours are from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
import numpy as np

from modhook.findings.statistics import t_within

HERE = Path(__file__).parent


@attrs.frozen
class Reference:
    """What the paper's own code gave for one network; one number per seed everywhere."""

    network: str
    """Label of the network on the page."""
    seeds: int
    versions: Mapping[str, str]
    threads: int
    hours: float
    """Of one thread's processor time, all seeds together."""
    changed: str
    """What of that code was changed to run it, in a sentence."""
    claims: Mapping[str, Sequence[float]]
    """Claim (its key) -> one number per seed."""
    matrices: Mapping[str, Mapping[str, Sequence[float]]]
    """Matrix -> column of the page's table -> one number per seed."""

    def __attrs_post_init__(self) -> None:
        columns = [values for matrix in self.matrices.values() for values in matrix.values()]
        for values in [*self.claims.values(), *columns]:
            if len(values) != self.seeds:
                raise ValueError(f"{self.network}: {len(values)} numbers for {self.seeds} seeds")


def read(file: Path = HERE / "reference.json") -> list[Reference]:
    """Return what is on record."""
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return cattrs.structure(found, list[Reference])


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the difference of the means in standard deviations, those of both pooled; NaN where one has no seed or both have one.

    Pooled as in Student's two-sample t: the deviation that both are taken to have, each side's degrees of freedom counted: a single
    seed has none, and the deviation is the other's alone.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (ours, theirs))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    freedom = len(a) + len(b) - 2
    if min(len(a), len(b)) < 1 or freedom < 1:
        return math.nan
    deviation = math.sqrt((a.var() * len(a) + b.var() * len(b)) / freedom)
    difference = float(a.mean() - b.mean())
    return (
        difference / deviation if deviation > 0 else (0.0 if difference == 0 else math.copysign(math.inf, difference))
    )


def beyond_one(ours: int, theirs: int) -> float:
    """Return how often two samples of these sizes from one normal distribution have means more than a standard deviation apart."""
    return 1 - t_within(1 / math.sqrt(1 / ours + 1 / theirs), ours + theirs - 2)
