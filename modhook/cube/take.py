"""Takes a finished run's stages from another cube, file by file, so that they are what computing them again would write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from modhook.cube.alike import SEED, shape_of
from modhook.cube.cube import Cube
from modhook.cube.metadata import nodes_of
from modhook.errors import CubeError, DamageError, listing

Run = Mapping[str, Any]


def same_stages(cube: Cube, source: Cube, run: Run, stages: Iterable[str]) -> bool:
    """Return whether stages of a run are the very ones in both cubes, file by file, as their records say."""
    here, there = (c._store.ledger.record(c._index(run), fresh=True) for c in (cube, source))
    return all(s in here.stages and here.stages[s] == there.stages.get(s) for s in stages)


def check_written(source: Cube, run: Run, stages: Sequence[str]) -> None:
    """Read every file of a run, and compare it with the run's record.

    Raises `DamageError` for a file that is not the one that was written, and for a record that names another run's files.
    """
    for damage in source.survey(run):
        if not damage.analysis:
            raise DamageError(f"{source.path} is damaged: {damage.text}; compute it again there (--repair), or leave --stages-from away.")
    at, ledger = source._index(run), source._store.ledger
    for key in _keys(source, run, stages):
        name = key.rpartition("/c/")[0]
        if not ledger.records(name) or ledger.owner(name, key) != at:
            raise DamageError(f"{source.path} is damaged: the record of {ledger.say(at)} names {key}, which is not of this run.")


def check_stage_names(cube: Cube, source: Cube) -> None:
    """Raise `CubeError` if the two have other stages; controls may add some."""
    mine, other = ([str(s) for s in c.labels("runs/status")["stage"]] for c in (cube, source))
    if {*mine} != {*other}:
        raise CubeError(
            f"{source.path} has the stages {listing(other, 20)}, but this study with its controls has {listing(mine, 20)}; give both "
            "the same [controls], and add further ones to this study afterwards."
        )


def check_layout(cube: Cube, source: Cube, run: Run, stages: Sequence[str]) -> None:
    """Raise `CubeError` if what stages of a run wrote in `source` does not fit into `cube`: other labels, sizes or types."""
    here, there = nodes_of(cube._store.document) or {}, nodes_of(source._store.document) or {}
    for name in dict.fromkeys(key.rpartition("/c/")[0] for key in _keys(source, run, stages)):
        if name not in here or shape_of(here[name]) != shape_of(there[name]) or _labels(cube, name) != _labels(source, name):
            raise CubeError(
                f"{name} has another size, type, description or other labels in {source.path} than in a cube of this study; compute both "
                "with one version of modhook and the same [controls], or leave --stages-from away."
            )


def _keys(source: Cube, run: Run, stages: Sequence[str]) -> list[str]:
    record = source._store.ledger.record(source._index(run))
    return list(dict.fromkeys(key for stage in stages for key in record.stages.get(stage, {})))


def take_stages(cube: Cube, source: Cube, run: Run, stages: Sequence[str]) -> None:
    """Write stages of a run that are done in `source`, with their times, and mark them done.

    The last stage is marked first: cut off, a run has no stage that is done before one that is pending, which would be
    computed without the gradients that the one before had left.

    Args:
        cube: where they go; stages that are done there are the same ones.
        source: a cube that keeps records, with the same run at the same place; see `check_written` and `check_layout`.
        run: the run's labels.
        stages: all stages of the run, in order.
    """
    at = source._index(run)
    record = source._store.ledger.record(at)
    sections = {stage: record.stages[stage] for stage in stages}
    cube.still_there()
    for key in _keys(source, run, stages):
        value = sync(source._store.get(key, default_buffer_prototype()))  # compared with the record as it is read
        assert value is not None
        cube.put(key, value)
    for name in (n for n in source.variables if n.startswith("timing/") and n in cube.variables):  # in no record
        for place in [{"stage": s} for s in stages] if "stage" in source.labels(name) else [{}]:
            if source.written(name, run, **place):
                cube.write(name, source.read(name, run, **place), run, **place)
    cube.adopt(run, sections)


def _labels(cube: Cube, name: str) -> dict[str, Sequence[Any]]:
    return {dim: labels for dim, labels in cube.labels(name).items() if dim != SEED}
