"""Reads out of a cube what verdicts are made of; a cube that lacks a control leaves its numbers out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from modhook.cube import done, masks_from, weights_from
from modhook.errors import CubeError, UserError, listing, near_miss
from modhook.findings.records import REAL, Compared, Measured, Values
from modhook.fit.settled import LATE
from modhook.masks import Masks, chance, iou
from modhook.values.arguments import shown


def measured(
    cube: xr.DataTree,
    metric: str | None = None,
    seeds: Collection[int] | None = None,
    point: Mapping[str, Any] | None = None,
) -> list[Measured]:
    """Return what a cube says of each function: every stage that leaves a mask, the control aside.

    Args:
        cube: from `open_cube`.
        metric: by default the cube's first. A function is measured on the split of its name, or else on the first.
        seeds: those that count; by default all of the cube.
        point: of a study with a sweep the point that is meant, {key: label}; `points(cube)` has all of them.

    Raises:
        UserError: a sweep without its point, one that it does not have, or a metric that is not there.
    """
    read = Reader.of(cube, metric, seeds, point or {})
    return [read.function(name) for name in read.functions]


def points(cube: xr.DataTree) -> list[dict[str, Any]]:
    """Return every point of a cube's sweep, {key: label}; one empty point of a study without one."""
    run = cube["runs/status"]
    keys = [str(d) for d in run.dims if d not in ("seed", "stage")]
    return [dict(zip(keys, at, strict=True)) for at in itertools.product(*(np.asarray(run[key]).tolist() for key in keys))]


class Reader:
    """One point of a cube, read for some seeds and one metric."""

    def __init__(self, cube: xr.DataTree, finished: xr.DataArray, metric: str, point: Mapping[str, Any]) -> None:
        self.cube, self.finished, self.metric, self.point = cube, finished, metric, dict(point)
        self.seeds = [int(s) for s in finished["seed"].values]
        self.stages = [str(s) for s in finished["stage"].values]
        self.scores = self._array(f"scores/{metric}")
        assert self.scores is not None
        self.splits = [str(s) for s in self.scores["split"].values]
        kept = self._masked()
        self.functions = [str(s) for s in self.scores["stage"].values if s not in ("unmasked", "control") and s in kept]

    @classmethod
    def of(
        cls, cube: xr.DataTree, metric: str | None, seeds: Collection[int] | None, point: Mapping[str, Any]
    ) -> Reader:
        """Return a cube's reader. Raises `UserError`; see `measured`."""
        finished = done(cube).load()
        sweep = [str(d) for d in finished.dims if d not in ("seed", "stage")]
        if unknown := [key for key in point if key not in sweep]:
            raise UserError(f"the cube has no sweep over {unknown[0]!r}; it has {listing(sweep) if sweep else 'none'}.")
        for key, label in point.items():
            labels = finished[key].values.tolist()
            if label not in labels:
                raise UserError(f"the cube has no {key} = {shown(label)}; it has {listing(map(str, labels))}.")
        if left := [key for key in sweep if key not in point]:
            raise UserError(
                f"the cube has a sweep over {listing(left)}: its findings would mix several studies; select one point."
            )
        metrics = [str(name) for name in cube["scores"].data_vars]
        if metric is None:
            metric = metrics[0]
        if metric not in metrics:
            raise UserError(f"the cube has no metric {metric!r}{near_miss(str(metric), metrics)}; it has {listing(metrics)}.")
        finished = finished.sel(dict(point))
        if seeds is not None:
            finished = finished.sel(seed=[s for s in finished["seed"].values if int(s) in seeds])
        return cls(cube, finished, metric, point)

    def function(self, name: str) -> Measured:
        """Return what is known of one function."""
        own = self._split(name)
        unmasked, masked = self._score("unmasked", own), self._score(name, own)
        others = {
            other: (self._score(name, other), self._score("unmasked", other))
            for other in self.functions
            if other != name and other in self.splits and own != other
        }
        removed = self._array(f"own_removed/{self.metric}")
        random, matched = self._removals(name, own)
        agreement, turned = self._agreement(name), self._turned(name)
        kept, weights = self._kept(name)
        return Measured(
            function=name,
            unmasked=unmasked,
            masked=masked,
            others=others,
            removed=None if removed is None else self._at(removed, name, own),
            random=random,
            matched=matched,
            own=self._own(name),
            spared={} if removed is None else {o: (self._at(removed, name, o), whole) for o, (_, whole) in others.items()},
            controls=self._controls(name, own),
            agreement=None if agreement is None else agreement[0],
            chance=None if agreement is None else agreement[1],
            moved=self._moved(name) if turned is None else turned,
            turned=turned is not None,
            chosen=self._chosen(own),
            why=self._why(name),
            kept=kept,
            weights=weights,
            said=self._said(name),
        )

    def _removals(self, name: str, own: str) -> tuple[Values | None, Values | None]:
        """Return scores without random weights that a function's mask does not keep, and how many these are of its own; without such
        in a seed that has the others (a run of an older version), scores without any random weights, of every seed: the two are
        not mixed."""
        rest, share, of_all = (
            self._array(f"own_removed/{n}") for n in (f"rest/{self.metric}", "rest_share", f"random/{self.metric}")
        )
        random = None if of_all is None else self._at(of_all, name, own)
        if rest is None or share is None:
            return random, None
        found = self._at(rest, name, own)
        if random is not None and (np.isfinite(random) & np.isnan(found)).any():
            return random, None
        return found, self._at(share, name)

    def _own(self, name: str) -> Values | None:
        """Return how many weights the function's mask keeps and no other one's; None where it was not counted."""
        found = self._array("own_removed/own")
        return None if found is None else self._at(found.sum("parameter", min_count=1), name)

    def _kept(self, name: str) -> tuple[Values, int | None]:
        """Return the share of all weights that the function's masks keep, and how many all are."""
        known = [bool(self.finished.sel(seed=seed, stage=name)) for seed in self.seeds]
        masks = [masks_from(self.cube, s, name, **self.point) if k else None for s, k in zip(self.seeds, known, strict=True)]
        sizes = [m.size for m in masks if m is not None]
        return np.array([np.nan if m is None else m.density for m in masks]), sizes[0] if sizes else None

    def _said(self, name: str) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Return what was said of the function's masks when they had been learned: rule, sentence, seeds."""
        lines, found = self._array("history/trust"), dict[tuple[str, str], list[int]]()
        if lines is None or name not in lines["stage"].values:
            return ()
        for seed in (s for s in self.seeds if bool(self.finished.sel(seed=s, stage=name))):
            for line in str(lines.sel(seed=seed, stage=name).item()).splitlines():
                rule, _, sentence = line.partition(": ")
                found.setdefault((rule, sentence), []).append(seed)
        return tuple((rule, sentence, tuple(seeds)) for (rule, sentence), seeds in found.items())

    def _why(self, *stages: str) -> str:
        """Return why something of these stages, or of what compares all functions, was not measured; empty where all is done."""
        status, reasons = self._array("runs/status"), self._array("runs/reason")
        known = [stage for stage in ("unmasked", *stages, *self.functions) if stage in self.stages]
        if status is None or reasons is None:
            return ""
        for stage in dict.fromkeys(known):
            for seed in self.seeds:
                if int(status.sel(seed=seed, stage=stage)) == 2:
                    return (
                        f"{stage} failed in seed {seed} ({str(reasons.sel(seed=seed, stage=stage).item()).rstrip('.')})"
                    )
        whole = bool(self.finished.sel(stage=list(dict.fromkeys(known))).all())
        return "" if whole else "not all runs are finished"

    def _split(self, name: str) -> str:
        return name if name in self.splits else self.splits[0]

    def _array(self, path: str) -> xr.DataArray | None:
        try:
            found = self.cube[path]
        except KeyError:
            return None
        if not isinstance(found, xr.DataArray):
            return None
        return found.sel({k: v for k, v in self.point.items() if k in found.dims}).load()

    def _at(self, values: xr.DataArray, stage: str, split: str | None = None) -> Values:
        at = values.sel(stage=stage) if split is None else values.sel(stage=stage, split=split)
        return np.asarray(at.sel(seed=self.seeds).values, dtype=np.float64)

    def _score(self, stage: str, split: str) -> Values:
        assert self.scores is not None
        if stage not in self.stages:
            return np.full(len(self.seeds), np.nan)
        return self._at(self.scores, stage, split)

    def _masked(self) -> set[str]:
        layouts = self.cube["masks"].children.values() if "masks" in self.cube.children else ()
        return {str(stage) for layout in layouts for stage in np.asarray(layout["bits"].coords["stage"])}

    def has_control(self, kind: str) -> bool:
        """Return whether the cube has a control: masks of another kind on the same network, or masks learned again."""
        kinds = self._array("controls/kind")
        return self._array(f"{kind}/{self.metric}") is not None or (kinds is not None and kind in kinds.values)

    def beside(self, name: str, kind: str) -> tuple[Values, Values, Values]:
        """Return score at equal size, size at equal score and unmasked score of a control of one function, or of its own mask.

        One number per seed each; NaN where it was not measured.
        """
        own, nan = self._split(name), np.full(len(self.seeds), np.nan)
        whole = self._score("unmasked", own)
        if kind == "mask":
            labels, kept = self._control_labels(name), self._array("controls/of_density")
            sizes = [] if kept is None else [self._at(kept, label) for label in labels.values()]
            known = [next((float(x) for x in each if np.isfinite(x)), np.nan) for each in zip(*sizes, strict=True)]
            return self._score(name, own), np.array(known) if known else nan, whole
        if (other := self._array(f"{kind}/{self.metric}")) is not None:
            scored = self._at(other, name, own) if name in other["stage"].values else nan
            return scored, nan, np.where(np.isfinite(scored), whole, np.nan)
        label = self._control_labels(name).get(kind)
        paths = ("controls/equal_size", "controls/unmasked")
        equal, unmasked = (self._array(f"{path}/{self.metric}") for path in paths)
        needed = self._array("controls/equal_score")
        if label is None or equal is None or unmasked is None or needed is None:
            return nan, nan, nan
        return self._at(equal, label, own), self._at(needed, label), self._at(unmasked, label, own)

    def _control_labels(self, name: str) -> dict[str, str]:
        """Return the control stages of one function that a verdict listens to, by their kind."""
        kinds, of = self._array("controls/kind"), self._array("controls/of")
        if kinds is None or of is None:
            return {}
        every = zip(kinds["stage"].values, kinds.values, of.values, strict=True)
        return {str(k): str(stage) for stage, k, whose in every if str(whose) == name and str(k) in REAL}

    def _controls(self, name: str, own: str) -> dict[str, Compared]:
        found = {}
        for kind, label in self._control_labels(name).items():
            unmasked = self._array(f"controls/unmasked/{self.metric}")
            equal = self._array(f"controls/equal_size/{self.metric}")
            needed, size = self._array("controls/equal_score"), self._array("controls/of_density")
            if unmasked is None or equal is None or needed is None or size is None:
                continue
            here, there = self._at(size, label), self._at(needed, label)
            complete = np.isfinite(here)
            with np.errstate(divide="ignore", invalid="ignore"):
                times = np.where(complete & (here > 0), np.where(np.isfinite(there), there, 1.0) / here, np.nan)
            scored = self._at(equal, label, own)
            never = complete & np.isnan(there) & np.isfinite(scored)
            found[kind] = Compared(self._at(unmasked, label, own), scored, times, never, self._why(label, name))
        return found

    def _agreement(self, name: str) -> tuple[Values, Values] | None:
        """Return, per seed, the mean IoU with this function's other masks on the same network, and chance; None without such masks."""
        measured, expected = self._array("seed_ceiling/iou"), self._array("seed_ceiling/chance")
        if measured is not None and expected is not None and name in measured["stage"].values:
            return tuple(self._at(x.sel(other=name), name) for x in (measured, expected))  # type: ignore[return-value]
        seeds = [seed for seed in self.seeds if bool(self.finished.sel(seed=seed, stage=name))]
        if len(seeds) < 2 or not self._one_network(seeds):
            return None
        masks = {seed: masks_from(self.cube, seed, name, **self.point) for seed in seeds}
        pairs = {frozenset(p): _alike(masks[p[0]], masks[p[1]]) for p in itertools.combinations(seeds, 2)}
        if len(seeds) == 2:  # one pair is one number, not two
            return tuple(np.array([x]) for x in pairs[frozenset(seeds)])  # type: ignore[return-value]
        each = [np.mean([pairs[frozenset((s, o))] for o in seeds if o != s], axis=0) for s in seeds]  # (n, 2)
        return np.array([x[0] for x in each]), np.array([x[1] for x in each])

    def _one_network(self, seeds: list[int]) -> bool:
        """Return whether all seeds have the same weights: then masks of two seeds are masks of one network."""
        if not hasattr(self, "_same"):
            try:
                first, *rest = (weights_from(self.cube, seed, **self.point) for seed in seeds)
                self._same = all(
                    w.keys() == first.keys() and all(bool((w[n] == t).all()) for n, t in first.items()) for w in rest
                )
            except CubeError:  # weights that change from stage to stage
                self._same = False
        return self._same

    def _chosen(self, own: str) -> bool:
        """Return whether the masks were cut by a score on the split that they are judged on."""
        cut = self.cube.attrs.get("study", {}).get("masks", {}).get("cut")
        return isinstance(cut, Mapping) and cut.get("within") is not None and (cut.get("split") or own) == own

    def _turned(self, name: str) -> Values | None:
        """Return what share of its weights as large a cut did not keep before the last tenth of the steps; None where it is not known."""
        turnover = self._array("history/turnover")
        if turnover is None or name not in turnover["stage"].values:
            return None
        found: Values = turnover.sel(stage=name, seed=self.seeds).values.astype(float)
        return found if np.isfinite(found).any() else None

    def _moved(self, name: str) -> Values | None:
        """Return by what share of itself the density changed over the last tenth of the recorded steps."""
        density = self._array("history/density")
        if density is None or "step" not in density.dims or name not in density["stage"].values:
            return None
        at = density.sel(stage=name, seed=self.seeds).transpose("seed", "step")
        return np.array([_last_change(row, at["step"].values) for row in at.values])


def _last_change(density: Values, steps: Values) -> float:
    """Return by what share of itself a density changed over the last tenth of the steps that were done, from its rows."""
    done = np.flatnonzero(np.isfinite(density))  # a fit that ended early, or at a smaller point of a sweep, has no later rows
    before = done[steps[done] <= (1 - LATE) * steps[done[-1]]] if len(done) else done
    if not len(before) or density[done[-1]] <= 0:
        return np.nan
    return float(abs(density[done[-1]] - density[before[-1]]) / density[done[-1]])


def _alike(a: Masks, b: Masks) -> tuple[float, float]:
    """Return the IoU of two masks, and what random masks of their sizes per tensor would have."""
    kept = [(m.numel(), int(m.sum()), int(b[n].sum())) for n, m in a.items()]
    expected = chance.total([chance.shared(*sizes) for sizes in kept])
    return float(iou(a, b)), expected.iou(sum(k[1] for k in kept), sum(k[2] for k in kept))
