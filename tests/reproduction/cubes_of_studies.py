"""What the page reads of cubes: networks with their numbers per seed, and how each differs from the published study."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import modhook
from modhook.study import flat, load, resolved, restore
from modhook.study.labels import labels
from modhook.study.source import shipped_files

Values = NDArray[np.float64]
"""One number per seed of the cube."""
_IRRELEVANT = ("study", "run", "sweep", "analyses", "controls")
_DATA = ("task.source", "task.folder")
IMAGES = {"cifar10": "images that have been through JPEG (mean error about 5 of 255)", "permuted_mnist": ""}
"""What is otherwise with the images that were read from a folder here, and not downloaded as the published studies do: nothing with
MNIST, whose 60,000 training images are learned and measured on."""
POOLED = "masks.beta"
"""The swept key that claims may be about as a whole."""


def label_of(study: str, point: Mapping[str, Any]) -> str:
    """Return how the page calls a network: its study and place in the sweep."""
    at = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in point.items())
    return f"`{study}`" + (f", {at}" if at else "")


@attrs.frozen(eq=False, slots=False)
class Network:
    """One network of a study: a cube at one point of its sweep, a sweep of `POOLED` aside."""

    study: str
    cube: xr.DataTree
    path: Path
    point: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its study and place in the sweep."""
        return label_of(self.study, self.point)

    def array(self, name: str) -> xr.DataArray | None:
        """Return a variable over seed and its own dimensions; None where the cube does not have it."""
        try:
            found = self.cube[name]
        except KeyError:
            return None
        assert isinstance(found, xr.DataArray)
        kept = found.sel({k: v for k, v in self.point.items() if k in found.dims})
        swept = {d: 0 for d in kept.dims if d == POOLED and kept.sizes[d] == 1}
        return kept.isel(swept).drop_vars([*swept], errors="ignore")

    def at(self, name: str, **where: Any) -> Values:
        """Return one number per seed; NaN where the cube lacks the variable, the label or the number."""
        found = self.array(name)
        if found is None or any(d not in found.dims or v not in found[d].values for d, v in where.items()):
            return np.full(self.cube.sizes["seed"], np.nan)
        return np.asarray(found.sel(where).values, dtype=np.float64)

    @property
    def each(self) -> dict[float, Network]:
        """The network at each value of the pooled key, in ascending order; empty where none is swept."""
        values = self.cube[POOLED].values if POOLED in self.cube.attrs["modhook_run_dims"] else ()
        return {float(v): attrs.evolve(self, point={**self.point, POOLED: v}) for v in sorted(values)} if len(values) > 1 else {}

    @property
    def stages(self) -> list[str]:
        """The stages of the study."""
        return [str(s) for s in self.cube["scores"]["stage"].values]

    @functools.cached_property
    def table(self) -> Mapping[str, Any]:
        """The study that the cube holds, with the defaults of options that are younger than the cube."""
        return resolved(restore(self.cube.attrs["study"]))

    @property
    def done(self) -> int:
        """How many seeds have all the study's stages, at every point of a pooled sweep."""
        status = self.array("runs/status")
        assert status is not None
        ended = status.sel(stage=self.stages) == 1
        return int(ended.all([d for d in ended.dims if d != "seed"]).sum())

    def differences(self) -> list[str]:
        """Return how this network was computed otherwise than in the published study, seeds first."""
        published = published_study(self.study)
        if not published:
            return ["not a published study"]
        seeds = int(published["study"]["seeds"])
        told = [f"{self.done} of {seeds} seeds"] if self.done != seeds else []
        here, there = (
            dict(flat({k: v for k, v in t.items() if k not in _IRRELEVANT})) for t in (self.table, published)
        )
        swept = {k: labels(v) for k, v in published.get("sweep", {}).items()}
        own = {k: labels(v) for k, v in self.table.get("sweep", {}).items()}
        if here.get("task.source") == "folder" and there.get("task.source") != "folder":
            told += [said] if (said := IMAGES.get(here["task.name"], "data from a folder")) else []
        for key in dict.fromkeys([*there, *here]):
            if key in swept or key in own or key in _DATA:
                continue
            if here.get(key, "nothing") != there.get(key, "nothing"):
                told.append(f"{key} {_shown(here.get(key, 'nothing'))} instead of {_shown(there.get(key, 'nothing'))}")
        for key, values in own.items():
            wanted = swept.get(key, labels([there[key]]) if key in there else [])
            if key in self.point and self.point[key] not in wanted:
                told.append(f"{key} {self.point[key]} instead of {', '.join(map(str, wanted)) or 'nothing'}")
            if key not in self.point and list(values) != list(wanted):
                told.append(
                    f"{len(values)} of {len(wanted)} values of {key}"
                    if set(values) < set(wanted)
                    else f"other values of {key}"
                )
        return told

    def seconds(self) -> float:
        """Return how long the stages took that are done, in all."""
        found = self.array("timing/seconds")
        return 0.0 if found is None else float(found.sum())

    def threads(self) -> dict[int, list[int]]:
        """Return with how many threads stages were computed, and of which seeds; the number that most stages had first."""
        found = self.array("runs/threads")
        assert found is not None
        numbers = sorted((int(t) for t in np.unique(found.values) if t), key=lambda t: -int((found == t).sum()))
        return {t: [int(s) for s in found["seed"].values if (found.sel(seed=s) == t).any()] for t in numbers}

    def last_seed(self) -> int:
        """Return the largest seed of which anything is done: a study of so many computes the same."""
        status = self.array("runs/status")
        assert status is not None
        return max(int(s) for s in status["seed"].values if (status.sel(seed=s) == 1).any())

    def commands(self, source: Network | None = None) -> list[str]:
        """Return what computes this network's runs, and then the analyses that the published study does not have.

        Args:
            source: the network whose stages they were taken from, if they were.
        """
        published = published_study(self.study)
        here, there = (
            dict(flat({k: v for k, v in t.items() if k not in _IRRELEVANT})) for t in (self.table, published)
        )
        threads = next(iter(self.threads()), self.table["run"]["threads"])
        sets = [f"study.seeds={self.last_seed()}", f"run.threads={threads}"]
        own = self.table.get("sweep", {})
        sets += [f"{k}={_toml(v)}" for k, v in here.items() if published and k not in (*own, *_DATA) and there.get(k, v) != v]
        sets += [
            f"sweep.{k}={_toml(v)}" for k, v in own.items() if published and published.get("sweep", {}).get(k) != v
        ]
        only = [f"--only {shlex.quote(f'{k}={v}')}" for k, v in self.point.items() if len(own.get(k, [])) > 1]
        taken = [f"--stages-from results/{source.study}.zarr"] if source else []
        run = " ".join(
            [f"modhook run {self.study}", *(f"--set {shlex.quote(s)}" for s in sets), *only, *taken, "--out results"]
        )
        further = [n for n in self.table.get("analyses", {}) if published and n not in published.get("analyses", {})]
        return [run, *(self._analyse(name) for name in further)]

    def _analyse(self, name: str) -> str:
        options = [f" --set {shlex.quote(f'{k}={_toml(v)}')}" for k, v in self.table["analyses"][name].items()]
        return f"modhook analyse results/{self.study}.zarr {name}{''.join(options)}"


def missing_points(study: str, found: Sequence[Network]) -> list[str]:
    """Return the labels of a published study's networks that are not among those found; the study alone where none of it is."""
    swept = {k: labels(v) for k, v in published_study(study).get("sweep", {}).items() if k != POOLED}
    there = [n for n in found if n.study == study]
    if not there:
        return [f"`{study}`"]
    wanted = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return [label_of(study, point) for point in wanted if all(dict(n.point) != point for n in there)]


def taken_from(network: Network, among: Sequence[Network]) -> Network | None:
    """Return the network whose stages, to the fraction of a second, this one's are (`modhook run --stages-from`); None without one.

    It is of the study whose name this one's adds to: `tuple_lstm_fullmask_io` is `tuple_lstm` with another option of an analysis.
    """
    mine = network.array("timing/seconds")
    for other in among:
        seconds = other.array("timing/seconds")
        like = network.study.startswith(f"{other.study}_") and other.point == network.point
        if like and mine is not None and seconds is not None and np.array_equal(mine.values, seconds.values, equal_nan=True):
            return other
    return None


def networks(paths: Sequence[Path]) -> list[Network]:
    """Return the networks of cubes, packed or not, of which at least one seed is done, in the cubes' order."""
    found = []
    for path in paths:
        cube = modhook.open_cube(path)
        study = str(cube.attrs["study"]["study"]["name"])
        dims = [d for d in cube.attrs["modhook_run_dims"] if d not in ("seed", POOLED)]
        for values in itertools.product(*(cube[d].values.tolist() for d in dims)):
            network = Network(study, cube, path, dict(zip(dims, values, strict=True)))
            if network.done:
                found.append(network)
    return found


@functools.cache
def published_study(name: str) -> dict[str, Any]:
    """Return the resolved study that comes with modhook under this name; nothing where none does."""
    file = shipped_files().get(name)
    return resolved(load(file)) if file is not None else {}


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
