"""What the report reads of a cube: how far each run is, scores, how much the masks keep. Missing values are NaN."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import xarray as xr

from modhook.findings import Finding, judge, measured

Place = dict[str, Any]
"""Coordinates: of a run `{"seed": 1, "masks.beta": 1e-4}`, or of a sweep point (without the seed)."""


@attrs.define(slots=False)
class Facts:
    """One cube, read for its report. `source` is the cube's path."""

    cube: xr.DataTree
    source: Path

    @property
    def table(self) -> Mapping[str, Any]:
        """The resolved study."""
        found: Mapping[str, Any] = self.cube.attrs.get("study", {})
        return found

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds."""
        return [int(s) for s in self.read("runs", "seed").values]

    @cached_property
    def sweep(self) -> list[str]:
        """The swept keys."""
        return [str(d) for d in self.status.dims if d not in ("seed", "stage")]

    @cached_property
    def points(self) -> list[Place]:
        """Every sweep point; one empty place without a sweep."""
        values = [self.status[key].values.tolist() for key in self.sweep]
        return [dict(zip(self.sweep, place, strict=True)) for place in itertools.product(*values)]

    @cached_property
    def runs(self) -> list[Place]:
        """Every run, seeds outermost."""
        return [{"seed": seed, **point} for seed in self.seeds for point in self.points]

    @cached_property
    def status(self) -> xr.DataArray:
        """Status codes (seed, sweep..., stage): 0 pending, 1 done, 2 failed."""
        return self.read("runs", "status")

    @cached_property
    def reason(self) -> xr.DataArray:
        """Why a stage failed (seed, sweep..., stage)."""
        return self.read("runs", "reason")

    @cached_property
    def stages(self) -> list[str]:
        """The study's stages in order, without those of controls."""
        controls = set(self.controls)
        return [s for s in self.every_stage if s not in controls]

    @cached_property
    def every_stage(self) -> list[str]:
        """All stages in order, those of controls too."""
        return [str(s) for s in self.status["stage"].values]

    @cached_property
    def controls(self) -> list[str]:
        """The stages of controls that learn masks."""
        return [str(s) for s in self.read("controls", "stage").values] if "controls" in self.cube.children else []

    @cached_property
    def masked(self) -> list[str]:
        """The stages that leave a mask, in order."""
        layouts = self.cube["masks"].children.values() if "masks" in self.cube.children else ()
        found = {str(s) for layout in layouts for s in array(layout, "stage").values}
        if "history" in self.cube.children and "stage" in self.cube["history"].coords:
            # A layout may also have stages whose weights are kept but that learn no mask; the history has none.
            found &= {str(s) for s in self.read("history", "stage").values}
        return [s for s in self.stages if s in found]

    @property
    def functions(self) -> list[str]:
        """The sub-functions' stages: all but the network before masking and the control."""
        return [s for s in self.stages if s not in ("unmasked", "control")]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that are shares, accuracy first."""
        scores = self.cube["scores"].data_vars if "scores" in self.cube.children else {}
        shares = [str(n) for n, v in scores.items() if v.attrs.get("table") == "percent"]
        return sorted(shares, key=lambda n: (n != "accuracy", n))

    @cached_property
    def tabulated(self) -> list[str]:
        """The metrics that tables show: those that are shares, then the others."""
        scores = self.cube["scores"].data_vars if "scores" in self.cube.children else {}
        numbers = [str(n) for n, v in scores.items() if v.attrs.get("table") == "number" and {"stage", "split"} <= set(v.dims)]
        return [*self.metrics, *numbers]

    @cached_property
    def judged(self) -> list[tuple[str, list[Finding]]]:
        """Every function (over a sweep with its point before it) and what is said of it; empty without anything to compare with."""
        if not {"controls", "own_removed"} & set(self.cube.children) or not self.metrics:
            return []
        return [
            (": ".join(filter(None, (label(point), one.function))), judge(one, every=every))
            for point in self.points
            for every in [measured(self.cube, self.metrics[0], point=point)]
            for one in every
        ]

    @cached_property
    def splits(self) -> list[str]:
        """The names of the test sets in order."""
        return [str(s) for s in self.read("scores", "split").values] if "scores" in self.cube.children else []

    @cached_property
    def analyses(self) -> list[str]:
        """The analyses that the cube has room for."""
        return [str(n) for n, v in self.cube["runs"].data_vars.items() if v.dtype == np.uint8 and "stage" not in v.dims]

    @cached_property
    def computed(self) -> list[tuple[str, str]]:
        """When and on which processors stages were computed, (what, in words); nothing of a cube that did not keep it."""
        found = []
        timing = self.cube["timing"].data_vars if "timing" in self.cube.children else {}
        done = (self.status == 1).values
        if "ended" in timing:
            days = sorted({str(t)[:10] for t in self.read("timing", "ended").values[done] if t})
            found += [("Date", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")] if days else []
        if "processor" in timing:
            names = sorted({str(t) for t in self.read("timing", "processor").values[done] if t})
            found += [("Processor", "; ".join(names))] if names else []
        return found

    def score(self, metric: str, group: str = "scores") -> xr.DataArray | None:
        """Return a metric (seed, sweep..., stage, split), NaN where it is not known; None if the cube has none."""
        if group not in self.cube.children or metric not in self.cube[group].data_vars:
            return None
        values = self.read(group, metric)
        return values.where(np.isfinite(values))

    @cached_property
    def kept(self) -> xr.DataArray:
        """Share of the masked weights that each mask keeps (seed, sweep..., stage), counted from the masks' bits."""
        dims = [*self.status.dims[:-1], "stage"]
        shares = np.full([*self.status.shape[:-1], len(self.masked)], np.nan)
        for at, place in self._indexed_runs():
            for n, bits in enumerate(self._bits(place)):
                if bits is not None:
                    size = self._size(self.layout(place))
                    shares[(*at, n)] = np.bitwise_count(bits).sum(dtype=np.int64) / size if size else np.nan
        coordinates = {d: self.status[d].values for d in dims[:-1]} | {"stage": self.masked}
        return xr.DataArray(shares, coordinates, dims)

    @cached_property
    def overlap(self) -> xr.DataArray:
        """Mean IoU over all pairs of the functions' masks (seed, sweep...), counted from the masks' bits."""
        dims = list(self.status.dims[:-1])
        values = np.full(self.status.shape[:-1], np.nan)
        for at, place in self._indexed_runs():
            found = dict(zip(self.masked, self._bits(place), strict=True))
            masks = [found[s] for s in self.functions if found.get(s) is not None]
            if len(masks) == len(self.functions) > 1:
                values[at] = np.mean([_iou(a, b) for a, b in itertools.combinations(masks, 2)])
        return xr.DataArray(values, {d: self.status[d].values for d in dims}, dims)

    @cached_property
    def chance(self) -> xr.DataArray | None:
        """Mean IoU that random masks of the functions' sizes would have (seed, sweep...); None without that analysis."""
        if "overlap" not in self.cube.children or "iou_chance_total" not in self.cube["overlap"].data_vars:
            return None
        every = self.read("overlap", "iou_chance_total")
        pairs = [every.sel(stage=a, other=b) for a, b in itertools.combinations(self.functions, 2)]
        return xr.concat(pairs, "pair").mean("pair") if pairs else None

    def read(self, group: str, name: str) -> xr.DataArray:
        """Return a variable or coordinate of a group of the cube, in memory."""
        return array(self.cube, f"{group}/{name}").load()

    def layout(self, place: Place) -> xr.DataTree:
        """Return the group below `masks` that holds the masks of a run."""
        name = str(self._layouts.sel(place).item())
        found = self.cube["masks"][name]
        assert isinstance(found, xr.DataTree)
        return found

    def finished(self, place: Place, stage: str) -> bool:
        """Return whether a stage of a run is done."""
        return int(self.status.sel({**place, "stage": stage})) == 1

    # -- inside

    def _indexed_runs(self) -> list[tuple[tuple[int, ...], Place]]:
        grid = itertools.product(*(range(n) for n in self.status.shape[:-1]))
        dims = self.status.dims[:-1]
        return [(at, {str(d): self.status[d].values[i] for d, i in zip(dims, at, strict=True)}) for at in grid]

    @cached_property
    def _layouts(self) -> xr.DataArray:
        return self.read("runs", "layout")

    def _size(self, layout: xr.DataTree) -> int:
        """Return the number of masked weights."""
        return int((array(layout, "count") * array(layout, "masked")).sum())

    def _bits(self, place: Place) -> list[Any]:
        """Return the packed bits (bytes,) of every masked stage of a run, None where the stage is not done."""
        done = [int(self.status.sel(place).sel(stage=s)) == 1 for s in self.masked]
        if not any(done):
            return [None] * len(done)
        bits = array(self.layout(place), "bits").sel(place)
        return [bits.sel(stage=s).values if d else None for s, d in zip(self.masked, done, strict=True)]


def label(place: Place) -> str:
    """Write a place for people: `seed 3, masks.beta = 0.0001`."""
    return ", ".join(f"seed {v}" if k == "seed" else f"{k} = {v}" for k, v in place.items())


def known(values: Any) -> list[float]:
    """Return the finite values, flat."""
    flat = np.asarray(values, dtype=float).ravel()
    return [float(v) for v in flat[np.isfinite(flat)]]


def mean(values: Any) -> float:
    """Return the mean of the finite values; NaN without any."""
    finite = known(values)
    return sum(finite) / len(finite) if finite else float("nan")


def array(tree: xr.DataTree, name: str) -> xr.DataArray:
    """Return one variable or coordinate of a group."""
    found = tree[name]
    assert isinstance(found, xr.DataArray)
    return found


def _iou(a: Any, b: Any) -> float:
    union = int(np.bitwise_count(a | b).sum(dtype=np.int64))
    return int(np.bitwise_count(a & b).sum(dtype=np.int64)) / union if union else float("nan")


def listed(words: Sequence[str], limit: int = 6) -> str:
    """Join words for a sentence: `a, b and c`; what is beyond the limit is counted."""
    shown = [*words[:limit], f"{len(words) - limit} more"] if len(words) > limit + 1 else list(words)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
