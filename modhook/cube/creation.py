"""Creates a cube: laid out completely beside its place, then moved there in one step."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import zarr
from zarr.storage import LocalStore

import modhook
from modhook.cube.arrays import consolidate, create_coordinate
from modhook.cube.cube import Cube
from modhook.cube.labels import Label
from modhook.cube.lay_out import lay_out
from modhook.cube.lock import writer_lock
from modhook.cube.plan import FORMAT, Plan, with_run_variables
from modhook.cube.resolve import Resolved, checked_attrs, checked_run_dims, resolve
from modhook.cube.store import local
from modhook.errors import CubeError


def create(path: str | Path, plan: Plan) -> Cube:
    """Lay out a new cube at `path` and return it; there is never half a cube.

    Raises:
        CubeError: `path` exists, its folder cannot be written, another process writes it, or the plan is inconsistent.
    """
    path = local(path)
    run_dims = checked_run_dims(plan.run_dims)
    attributes = checked_attrs(plan.attrs)
    full = with_run_variables(plan)
    resolved = resolve(full.variables, full.labels, full.sizes, run_dims)
    with writer_lock(path):
        if os.path.lexists(path):
            raise CubeError(f"{path} exists already; continue it, remove it, or use another --out.")
        for leftover in path.parent.glob(f".{path.name}.*.partial"):  # of a killed process: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        own = {"modhook_format": FORMAT, "modhook_version": modhook.__version__, "modhook_run_dims": list(run_dims)}
        try:
            _write(partial, attributes | own, run_dims, resolved)
            partial.rename(path)
        except OSError as error:
            raise CubeError(f"{path} cannot be written: {error.strerror or error}; use another --out.") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Cube(path)


def _write(
    folder: Path, attributes: Mapping[str, object], run_dims: Mapping[str, Sequence[Label]], resolved: Resolved
) -> None:
    store = LocalStore(folder)
    root = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    for name, labels in run_dims.items():
        create_coordinate(root, name, labels)
    lay_out(root, resolved, run_dims)
    consolidate(store)
