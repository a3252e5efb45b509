"""Creates a cube: laid out completely, and then there in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import zarr
from zarr.core.sync import sync
from zarr.storage import MemoryStore

import modhook
from modhook.cube.arrays import consolidate, create_coordinate
from modhook.cube.cube import Cube
from modhook.cube.labels import Label
from modhook.cube.lay_out import lay_out
from modhook.cube.lock import writer_lock
from modhook.cube.metadata import ROOT, Draft
from modhook.cube.place import Where, reason
from modhook.cube.plan import FORMAT, Plan, with_run_variables
from modhook.cube.resolve import Resolved, checked_attrs, checked_run_dims, resolve
from modhook.cube.where import place_of
from modhook.errors import CubeError, ModhookError

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer


def create(path: Where, plan: Plan) -> Cube:
    """Lay out a new cube at `path`, a local path or a URL, and return it; there is never half a cube.

    Raises:
        CubeError: `path` exists, it cannot be written, another process writes it, or the plan is inconsistent.
    """
    place = place_of(path)
    run_dims = checked_run_dims(plan.run_dims)
    attributes = checked_attrs(plan.attrs)
    full = with_run_variables(plan)
    resolved = resolve(full.variables, full.labels, full.sizes, run_dims)
    own = {"modhook_format": FORMAT, "modhook_version": modhook.__version__, "modhook_run_dims": list(run_dims)}
    with writer_lock(path):
        try:
            with place.creating() as store:
                files = _laid_out(attributes | own, run_dims, resolved)
                # One after the other, so that whoever interrupts this leaves nothing that is still being written.
                for key in sorted(files, key=lambda key: key == ROOT):
                    sync(store.set(key, files[key]))
        except ModhookError:
            raise
        except Exception as error:
            if not place.is_failure(error):
                raise
            raise CubeError(f"{place} cannot be written: {reason(error)}; use another --out.") from error
    return Cube(path)


def _laid_out(attributes: Mapping[str, object], run_dims: Mapping[str, Sequence[Label]], resolved: Resolved) -> dict[str, Buffer]:
    """Return every file of the empty cube. In memory: zarr asks a store of what it is about to write many times over."""
    files: dict[str, Buffer] = {}
    draft = Draft(MemoryStore(files))
    root = zarr.create_group(draft, zarr_format=3, attributes=dict(attributes))
    for name, labels in run_dims.items():
        create_coordinate(root, name, labels)
    lay_out(root, resolved, run_dims)
    consolidate(draft)
    return files
