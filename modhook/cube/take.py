"""Takes a finished run's stages from another cube, file by file, so that they are what computing them again would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from modhook.cube.alike import SEED, shape_of
from modhook.cube.cube import Cube
from modhook.cube.metadata import nodes_of
from modhook.errors import CubeError


def take_stages(cube: Cube, source: Cube, run: Mapping[str, Any], stages: Sequence[str]) -> None:
    """Write stages of a run that are done in `source`, with their times, and mark them done.

    Args:
        cube: where they go; its run has none of them.
        source: a cube that keeps records, with the same run at the same place.
        run: the run's labels.
        stages: all stages of the run, in order.

    Raises:
        CubeError: variables with another layout or other labels. DamageError: a file that is not the one that was written.
    """
    at = source._index(run)
    sections = source._store.ledger.record(at, fresh=True).stages
    keys = {stage: list(sections.get(stage, {})) for stage in stages}
    cube.still_there()
    _check(cube, source, {key.rpartition("/c/")[0] for files in keys.values() for key in files})
    for name in (n for n in source.variables if n.startswith("timing/") and n in cube.variables):  # in no record
        for place in [{"stage": s} for s in stages] if "stage" in source.labels(name) else [{}]:
            if source.written(name, run, **place):
                cube.write(name, source.read(name, run, **place), run, **place)
    for stage in stages:
        for key in keys[stage]:
            value = sync(source._store.get(key, default_buffer_prototype()))  # compared with the record as it is read
            if value is None:
                raise CubeError(f"{source.path} is damaged: {key} of stage {stage!r} cannot be read; compute it again.")
            cube.put(key, value)
        route = str(source.read("runs/route", run, stage=stage).item())
        cube.set_status(run, stage, "done", route=route, threads=int(source.read("runs/threads", run, stage=stage)))


def _check(cube: Cube, source: Cube, names: set[str]) -> None:
    here, there = nodes_of(cube._store.document) or {}, nodes_of(source._store.document) or {}
    for name in sorted(names):
        if name not in here or shape_of(here[name]) != shape_of(there[name]) or _labels(cube, name) != _labels(source, name):
            raise CubeError(
                f"{name} has another size, type, description or other labels in {source.path} than in {cube.path}; compute both with "
                "one version of modhook and the same controls, or leave --stages-from away."
            )


def _labels(cube: Cube, name: str) -> dict[str, Sequence[Any]]:
    return {dim: labels for dim, labels in cube.labels(name).items() if dim != SEED}
