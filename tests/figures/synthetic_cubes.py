"""Cubes as a study of ten seeds leaves them, filled with random numbers instead of results: for looks and for speed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modhook.cube import Cube, create
from modhook.plugin.manager import plugins
from modhook.run.layout import plan, prepare
from modhook.study import load, points


def synthetic_cube(
    path: Path,
    study_file: Path,
    overrides: Sequence[str] = (),
    seeds: int = 10,
    unfinished: Sequence[int] = (),
    variant: str | None = None,
) -> Path:
    """Lay out a study's cube as `modhook run` does and write every float variable of every run but those of `unfinished` seeds.

    Shares are uniform between 0 and 1, counts stay below their tensor's size. Masks and weights are left unwritten: figures do
    not read them.
    """
    installed = plugins()
    study = load(study_file, variant, overrides=overrides, plugins=installed)
    make = installed.load("tasks", study.task.name)
    known: dict[str, Any] = {}
    tasks = [known.setdefault(repr(p.study.task), make(p.study.task.options)) for p in points(study)]
    prepared = prepare(study, installed, tasks)
    cube = create(path, plan(prepared, range(1, seeds + 1), {}))
    names = [
        n for n in cube.variables if cube.dtype(n).startswith("float") and n.split("/")[0] not in ("masks", "timing")
    ]
    for number, labels in enumerate(itertools.product(*cube.run_dims.values())):
        run = dict(zip(cube.run_dims, labels, strict=True))
        if run["seed"] in unfinished:
            continue
        at = next(i for i, p in enumerate(prepared.points) if all(run[k] == v for k, v in p.labels.items()))
        layout = prepared.layouts[at]
        sizes = {n: float(np.prod(layout.state[n][0])) for n in layout.masked}
        rng = np.random.default_rng(number)
        for name in names:
            _write(cube, name, run, rng, sizes)
    return path


def _write(cube: Cube, name: str, run: dict[str, Any], rng: np.random.Generator, sizes: dict[str, float]) -> None:
    """Write one variable of one run, stage by stage where its first own dimension is `stage`."""
    labels = {d: v for d, v in cube.labels(name).items() if d not in cube.run_dims}
    shape = tuple(len(v) for v in labels.values())
    values = rng.random(shape)
    if "parameter" in labels:
        axis = list(labels).index("parameter")
        size = np.array([sizes.get(str(p), np.nan) for p in labels["parameter"]])
        size = size.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        values = np.where(np.isnan(size), np.nan, values)
        if name == "overlap/size":
            values = np.broadcast_to(size, shape).copy()
        elif name in ("overlap/kept", "overlap/intersection"):
            values = np.floor(values * size)
        elif name == "mask_images/counts":
            values = np.floor(9 * values)
    elif name.startswith("mask_histogram"):
        values = np.floor(1e4 * values**8)
    cube.write(name, values.astype(cube.dtype(name)), run)
