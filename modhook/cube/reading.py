"""Opening a cube again: as a lazy xarray tree, and as masks, logits and weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from modhook.cube.cube import Cube
from modhook.cube.place import Where
from modhook.cube.store import open_root, open_store
from modhook.cube.tensors import read_logits, read_masks, read_weights
from modhook.cube.where import place_of
from modhook.errors import CubeError, ModhookError, listing
from modhook.values.arguments import instance

if TYPE_CHECKING:
    from torch import Tensor

    from modhook.masks import Masks

    CubeLike = Where | Cube | xr.DataTree


def open_cube(path: Where) -> xr.DataTree:
    """Open a cube as an `xarray.DataTree`; values are read from disk when they are used.

    Text is object strings. Floats of unfinished runs are NaN, but integers and bytes read 0: `runs/status` says where
    they are valid, and `done` returns it as booleans. A damaged file raises `CubeError` when it is read.

    Args:
        path: the folder, `"results/scan.zarr"`, or a URL that fsspec understands, `"s3://bucket/scan.zarr"`.

    Raises:
        CubeError: a missing path, a folder that is no cube, or a damaged one.
        StorageError: a place that cannot be read.
    """
    instance("the cube", path, (str, Path), "a path or a URL")
    if "\0" in str(path):
        raise CubeError(f"there is no cube {str(path)!r}: no folder can have this name.")
    place = place_of(path)
    store = open_store(place, read_only=True)
    root = open_root(store, place, writable=False)
    try:
        groups = xr.open_groups(cast(Any, store), engine="zarr", chunks=None, consolidated=True, zarr_format=3)
        tree = xr.DataTree.from_dict({name: _with_object_strings(ds, root, name) for name, ds in groups.items()})
    except ModhookError:
        raise
    except Exception as error:  # whatever zarr or xarray stumbles over in damaged metadata
        raise CubeError(f"{place} is damaged: it cannot be opened ({error}).") from error
    tree.encoding = {"source": str(place)}
    return tree


def done(cube: xr.DataTree) -> xr.DataArray:
    """Return a bool array over the run's dimensions and `stage`: whether that stage of that run is done."""
    status = cube["runs/status"]
    assert isinstance(status, xr.DataArray)
    return status == 1


def masks_from(cube: CubeLike, seed: int, stage: str, **sweep: Any) -> Masks:
    """Return the masks of one stage of one run.

    Args:
        cube: what `open_cube` returned, or a path. The files are read, not what was changed in memory.
        seed: the run's seed.
        stage: label of the stage, `"add"`.
        sweep: labels of the sweep's dimensions, `**{"masks.beta": 1e-4}`, or `beta=1e-4` where only one dimension ends so;
            a dimension with one label may be left out.

    Raises:
        CubeError: labels that the cube does not have, a stage that is not done or leaves no mask, a damaged file.
    """
    place = _place(cube, seed, stage, sweep)
    place.require(stage, masked=True)
    return read_masks(place.cube, place.layout, place.run, stage)


def logits_from(cube: CubeLike, seed: int, stage: str, **sweep: Any) -> dict[str, Tensor]:
    """Return the mask logits of one stage of one run, float32 or float16 as stored; arguments and errors as `masks_from`.

    Their sign is not the mask: float16 rounds a tiny negative logit to zero. Use `masks_from` for masks.
    """
    place = _place(cube, seed, stage, sweep)
    place.require(stage, masked=True)
    return read_logits(place.cube, place.layout, place.run, stage)


def weights_from(cube: CubeLike, seed: int, stage: str | None = None, **sweep: Any) -> dict[str, Tensor]:
    """Return the trained weights of one run, buffers included, for `model.load_state_dict`.

    `stage` says after which stage; it must be given where the study's protocol changes the weights from stage to stage.
    Other arguments and errors as `masks_from`.
    """
    place = _place(cube, seed, stage, sweep)
    name = f"masks/{place.layout}/weights"
    per_stage = "stage" in place.cube.labels(name)
    if stage is None and per_stage:
        stages = listing(map(str, place.cube.labels(name)["stage"]))
        raise CubeError(f"{place.cube.path} keeps weights per stage; name one of: {stages}.")
    place.require(stage, masked=per_stage)
    return read_weights(place.cube, place.layout, place.run, stage if per_stage else None)


@attrs.frozen
class _Place:
    """One run of a cube, and the group that holds its masks and weights."""

    cube: Cube
    run: dict[str, Any]
    layout: str

    def require(self, stage: str | None, masked: bool) -> None:
        """Check that a stage (None: the first, base training) is done, and that the layout has it if `masked`."""
        stages = [str(s) for s in self.cube.labels("runs/status")["stage"]]
        self.cube.require_done(self.run, stages[0] if stage is None else stage)
        kept = [str(s) for s in self.cube.labels(f"masks/{self.layout}/bits")["stage"]]
        if masked and stage not in kept:
            raise CubeError(f"stage {stage!r} leaves no mask in {self.cube.path}; stages that do: {listing(kept)}.")


def _place(cube: CubeLike, seed: int, stage: str | None, sweep: dict[str, Any]) -> _Place:
    opened = cube if isinstance(cube, Cube) else Cube(_source(cube), read_only=True)
    run: dict[str, Any] = {"seed": seed}
    dims = [d for d in opened.run_dims if d != "seed"]
    for name, value in sweep.items():
        ends = [d for d in dims if d == name] or [d for d in dims if d.rpartition(".")[2] == name]
        if len(ends) != 1:
            raise CubeError(f"{opened.path} has no sweep dimension {name!r}; it has: {listing(dims)}.")
        run[ends[0]] = value
    for dim in dims:
        labels = opened.run_dims[dim]
        if dim not in run and len(labels) > 1:
            raise CubeError(f"{opened.path} has several values of {dim}; give one of: {listing(map(str, labels))}.")
        run.setdefault(dim, labels[0])
    if stage is not None:
        opened.status(run, stage)  # an unknown label is named before anything else is missed
    layout = str(opened.read("runs/layout", run).item())
    if not layout:
        what = ", ".join(f"{d}={v}" for d, v in run.items())
        raise CubeError(f"the run {what} has left nothing in {opened.path} yet; run the study to its end first.")
    return _Place(opened, run, layout)


def _source(cube: Where | xr.DataTree) -> Where:
    if not isinstance(cube, xr.DataTree):
        return cube
    source = cube.root.encoding.get("source")
    if not source:
        raise CubeError(
            "this tree does not know its file any more; give the path of the cube, or what open_cube returned."
        )
    return str(source)


class _ObjectStrings(BackendArray):
    """A text variable read lazily as object strings.

    zarr reads text as numpy's StringDType, which xarray cannot fill up when it aligns: `where` and `reindex` fail.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = np.dtype(object)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Any) -> Any:
        return np.asarray(self._array.oindex[key]).astype(object)


def _with_object_strings(dataset: xr.Dataset, root: zarr.Group, group: str) -> xr.Dataset:
    texts: dict[Any, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        array = root[f"{group}/{name}".strip("/")]
        if isinstance(array, zarr.Array) and array.dtype.kind not in "fiubcmMSUV":
            values = (
                variable.values.astype(object)
                if name in dataset.dims
                else indexing.LazilyIndexedArray(_ObjectStrings(array))
            )
            texts[name] = xr.Variable(variable.dims, values, variable.attrs)
    coordinates = {n: v for n, v in texts.items() if n in dataset.coords}
    return dataset.assign({n: v for n, v in texts.items() if n not in coordinates}).assign_coords(coordinates)
