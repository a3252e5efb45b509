"""Takes a finished run's stages from another cube, file by file, so that they are what that cube holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from modhook.cube.alike import SEED, shape_of
from modhook.cube.cube import Cube
from modhook.cube.metadata import nodes_of
from modhook.errors import CubeError, DamageError

Run = Mapping[str, Any]


def same_stages(cube: Cube, source: Cube, run: Run, stages: Iterable[str]) -> bool:
    """Return whether stages of a run are the very ones in both cubes, file by file, as their records say."""
    here, there = (c._store.ledger.record(c._index(run), fresh=True) for c in (cube, source))
    return all(s in here.stages and here.stages[s] == there.stages.get(s) for s in stages)


def check_written(source: Cube, run: Run, stages: Sequence[str]) -> None:
    """Read every file of a run, and compare it with the run's record; damaged analyses do not count.

    Raises `DamageError` for a file that is not the one that was written, and for a record that names other files.
    """
    for damage in source.survey(run):
        if not damage.analysis:
            raise DamageError(f"{source.path} is damaged: {damage.text}; compute it again there (--repair), or leave --stages-from away.")
    at, ledger = source._index(run), source._store.ledger
    if other := sorted({*_keys(source, run, stages)} - {*ledger.files(at)}):
        raise DamageError(f"{source.path} is damaged: the record of {ledger.say(at)} names {other[0]}, which is not of this run.")


def check_layout(cube: Cube, source: Cube, runs: Iterable[Run], stages: Sequence[str]) -> None:
    """Raise `CubeError` if what stages of runs wrote in `source` does not fit into `cube`: other labels, sizes, types or tables.

    The tables say which weight lies where in the masks; all runs share them.
    """
    here, there = nodes_of(cube._store.document) or {}, nodes_of(source._store.document) or {}
    written = dict.fromkeys(key.rpartition("/c/")[0] for run in runs for key in _keys(source, run, stages))
    tables = source.tables
    for name in sorted({*written, *tables}):
        same = name in here and shape_of(here[name]) == shape_of(there[name]) and _labels(cube, name) == _labels(source, name)
        if same and name in tables:
            same = np.array_equal(cube.read(name, {}).astype(object), source.read(name, {}).astype(object))
        if not same:
            raise CubeError(
                f"{name} has another size, type, description, values or other labels in {source.path} than in a cube of this study; "
                "compute both with one version of modhook and the same [controls], or leave --stages-from away."
            )


def take_stages(cube: Cube, source: Cube, run: Run, stages: Sequence[str]) -> None:
    """Write stages of a run that are done in `source`, with their times, and mark them done.

    Args:
        cube: where they go; stages that are done there are the same ones.
        source: a cube that keeps records, with the same run at the same place; see `check_written` and `check_layout`.
        run: the run's labels.
        stages: all stages of the run, in order.
    """
    record = source._store.ledger.record(source._index(run))
    cube.still_there()
    for key in _keys(source, run, stages):
        value = sync(source._store.get(key, default_buffer_prototype()))  # compared with the record as it is read
        assert value is not None
        cube.put(key, value)
    for name in (n for n in source.variables if n.startswith("timing/") and n in cube.variables):  # in no record
        for place in [{"stage": s} for s in stages] if "stage" in source.labels(name) else [{}]:
            if source.written(name, run, **place):
                cube.write(name, source.read(name, run, **place), run, **place)
    cube.adopt(run, {stage: record.stages[stage] for stage in stages})


def _keys(source: Cube, run: Run, stages: Sequence[str]) -> list[str]:
    record = source._store.ledger.record(source._index(run))
    return list(dict.fromkeys(key for stage in stages for key in record.stages.get(stage, {})))


def _labels(cube: Cube, name: str) -> dict[str, Sequence[Any] | None]:
    """Return the labels of a variable's dimensions, seeds aside; None where there are none."""
    group, dims = name.rpartition("/")[0], (nodes_of(cube._store.document) or {})[name]["dimension_names"]
    return {dim: cube._coordinate(group, dim) for dim in dims if dim != SEED}
