"""A cube's masks beside their controls: what each scores at equal size, and how large it is at an equal score."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

from modhook.cube import done
from modhook.errors import UserError
from modhook.findings.reading import Reader
from modhook.findings.records import REAL, Values
from modhook.findings.statistics import interval

MASK = "mask"
"""What the function's own mask is called among its controls."""
SCORED = ("random", "magnitude")
"""Controls that are other masks of the same size on the same network."""
_CONFIDENCE = 0.95
_BOUNDS = ("mean", "low", "high")


def compared(
    cube: xr.DataTree, metric: str | None = None, seeds: Collection[int] | None = None, **sweep: Any
) -> xr.Dataset:
    """Return every function's mask beside its controls, for `modhook.plot` and for tables.

    Args:
        cube: from `open_cube`.
        metric: by default the cube's first. A function is measured on the split of its name, or else on the first.
        seeds: those that count; by default all of the cube.
        sweep: the point of a study with a sweep, `**{"masks.beta": 1e-4}`.

    Returns:
        Dataset over `seed`, `function` and `against`: "mask", and those of `random`, `magnitude`, `shuffled`, `untrained` and `nonsense`
        that the cube has. `equal_size` is the score under as many weights as the mask keeps, `equal_score` the share of weights that is
        needed for what the mask scores (NaN where no size is enough; not measured for other masks on the same network, nor of the
        mask where nothing was learned again), `unmasked` the score of each one's network without a mask. `equal_size_interval` and
        `equal_score_interval` (function, against, bound) have mean, low and high of a t interval of 95 % over the seeds, no wider than
        is possible, that of sizes on their logarithms; `measured` and `reached` (function, against) count the seeds that have a
        score, and those in which some size is enough.

    Raises:
        UserError: a sweep without its point, a metric that is not there, no control.
    """
    read = Reader.of(cube, metric, seeds, sweep)
    known = [SCORED, REAL]
    against = [MASK, *(k for group in known for k in group if read.has_control(k))]
    if len(against) == 1:
        raise UserError(
            "the cube has no control that masks could be compared with; ask for one in [controls], or with controls= of modhook.ask."
        )
    names = read.functions
    shape = (len(read.seeds), len(names), len(against))
    score, size, whole = (np.full(shape, np.nan) for _ in range(3))
    for f, name in enumerate(names):
        for a, kind in enumerate(against):
            score[:, f, a], size[:, f, a], whole[:, f, a] = read.beside(name, kind)
    found = np.isfinite(score)
    over = ("seed", "function", "against")
    values: dict[str, Any] = {
        "equal_size": (over, score),
        "equal_score": (over, size),
        "unmasked": (over, whole),
        "measured": (over[1:], found.sum(0)),
        "reached": (over[1:], np.isfinite(size).sum(0)),
        "equal_size_interval": ((*over[1:], "bound"), _possible(_intervals(score), score)),
        "equal_score_interval": ((*over[1:], "bound"), np.minimum(np.exp(_intervals(_logs(size))), 1.0)),
    }
    coords = {"seed": read.seeds, "function": names, "against": against, "bound": list(_BOUNDS)}
    percent = str(cube[f"scores/{read.metric}"].attrs.get("table")) == "percent"
    return xr.Dataset(values, coords=coords, attrs={"metric": read.metric, "percent": int(percent)})


def has_controls(cube: xr.DataTree) -> bool:
    """Return whether a cube has something that `compared` shows, and a seed in which it is done."""
    groups = [g for g in (*SCORED, "controls") if g in cube.children]
    return bool(groups) and bool(done(cube).any())


def _possible(bounds: Values, scores: Values) -> Values:
    """Return intervals no wider than is possible: between 0 and 1 where all scores are."""
    known = scores[np.isfinite(scores)]
    inside = known.size and known.min() >= 0 and known.max() <= 1
    return np.clip(bounds, 0.0, 1.0) if inside else bounds


def _logs(values: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Values = np.log(values)
        return logs


def _intervals(values: Values) -> Values:
    """Return mean, low and high over the first dimension: (functions, controls, 3)."""
    result = np.full((*values.shape[1:], 3), np.nan)
    for at in np.ndindex(*values.shape[1:]):
        own = values[(slice(None), *at)]
        result[at] = interval([float(v) for v in own[np.isfinite(own)]], _CONFIDENCE)
    return result
