"""What an open cube holds: its attributes and variables, and where the values of one run lie in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from modhook.cube.arrays import CONFIG, dim_names
from modhook.cube.labels import Label, position
from modhook.cube.ledger import Index
from modhook.cube.metadata import variable_names
from modhook.cube.packed import check_kept
from modhook.cube.place import Where
from modhook.cube.store import open_root, open_store
from modhook.cube.where import place_of
from modhook.errors import CubeError, ModhookError, listing, near_miss

if TYPE_CHECKING:
    from modhook.cube.layout import Entry

Run = Mapping[str, Any]


class Contents:
    """Attributes, labels and arrays as they are laid out in the store; they are read again after the cube has grown."""

    def __init__(self, path: Where, *, read_only: bool = False) -> None:
        self._place = place_of(path)
        self.path: Where = self._place.path
        """Where it lies: an absolute path, or a URL."""
        self._read_only = read_only
        self._load()

    def _load(self) -> None:
        self._store = open_store(self._place, read_only=self._read_only)
        self._root = open_root(self._store, self._place, writable=not self._read_only)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._labels: dict[str, tuple[Label, ...]] = {}
        self.entries: dict[str, tuple[Entry, ...]] = {}
        """Where every tensor lies, by layout, of those that were asked for (`modhook.cube.tensors.table`)."""
        self.attrs: dict[str, Any] = dict(self._root.attrs.asdict())
        """Attributes of the root: those of the plan, `modhook_format` and `modhook_version`."""
        self.run_dims: dict[str, list[Label]] = {
            d: list(self._coordinate("", d) or ()) for d in self.attrs["modhook_run_dims"]
        }
        """The run's dimensions in order, with their labels."""

    @property
    def variables(self) -> list[str]:
        """Names of all variables, without coordinates, sorted."""
        return variable_names(self._store.document)

    @property
    def tables(self) -> list[str]:
        """Names of the variables that say which weight lies where in the masks; all runs share them."""
        masks = (name for name in self.variables if name.startswith("masks/"))
        return [name for name in masks if not {*self.run_dims} & {*self._dims(name, self._array(name))}]

    def labels(self, name: str) -> dict[str, tuple[Label, ...]]:
        """Return the labels of every dimension of a variable; 0, 1, ... where there are none. Raises `CubeError`."""
        array, group = self._array(name), name.rpartition("/")[0]
        sizes = zip(self._dims(name, array), array.shape, strict=True)
        return {d: self._coordinate(group, d) or tuple(range(n)) for d, n in sizes}

    def dtype(self, name: str) -> str:
        """Return the type of a variable, as in its declaration. Raises `CubeError` for an unknown name."""
        return self._dtype(self._array(name))

    # -- inside

    def _index(self, run: Run) -> Index:
        if missing := [d for d in self.run_dims if d not in run]:
            raise CubeError(f"a run of {self.path} needs {missing[0]!r}; its dimensions are: {listing(self.run_dims)}.")
        return tuple(position(v, run[d], d, str(self.path)) for d, v in self.run_dims.items())

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            found = self._root.get(name)
            if not isinstance(found, zarr.Array):
                check_kept(self.attrs, name, self.path)
                known = self.variables
                raise CubeError(
                    f"{self.path} has no variable {name!r}{near_miss(name, known)}; it has: {listing(known)}."
                )
            self._arrays[name] = found.with_config(CONFIG)
        return self._arrays[name]

    def _dims(self, name: str, array: zarr.Array[Any]) -> tuple[str, ...]:
        dims = dim_names(array)
        if len(dims) != array.ndim:
            raise CubeError(f"{name} in {self.path} has no named dimensions; modhook did not write it.")
        return dims

    def _region(
        self, name: str, array: zarr.Array[Any], run: Run, labels: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        dims = self._dims(name, array)
        per_run = [d for d in self.run_dims if d in dims]
        if unknown := [d for d in run if d not in self.run_dims]:
            raise CubeError(f"{self.path} has no run dimension {unknown[0]!r}; it has: {listing(self.run_dims)}.")
        if missing := [d for d in per_run if d not in run]:
            raise CubeError(f"{name} needs the run's {missing[0]!r}; its run dimensions are: {listing(per_run)}.")
        if unknown := [d for d in labels if d not in dims or d in self.run_dims]:
            raise CubeError(
                f"{name} has no dimension {unknown[0]!r} of its own; it has: {listing(d for d in dims if d not in per_run)}."
            )
        where: list[Any] = []
        for dim, size in zip(dims, array.shape, strict=True):
            if dim in per_run:
                where.append(position(self.run_dims[dim], run[dim], dim, str(self.path)))
            elif dim in labels:
                known = self._coordinate(name.rpartition("/")[0], dim) or tuple(range(size))
                where.append(position(known, labels[dim], dim, name))
            else:
                where.append(slice(None))
        shape = tuple(n for n, i in zip(array.shape, where, strict=True) if not isinstance(i, int))
        return tuple(where), shape

    def _coordinate(self, group: str, dim: str) -> tuple[Label, ...] | None:
        key = f"{group}/{dim}".lstrip("/")
        if key not in self._labels:
            # Asked of zarr, what is not there is an error that holds all frames below it, and what these hold, for the garbage collector.
            known = self._root.metadata.consolidated_metadata
            found = None if known is not None and key not in known.flattened_metadata else self._root.get(key)
            if not isinstance(found, zarr.Array):
                return None
            self._labels[key] = tuple(self._values(found, (slice(None),)).tolist())
        return self._labels[key]

    def _values(self, array: zarr.Array[Any], where: tuple[Any, ...]) -> NDArray[Any]:
        try:
            values = np.asarray(array[where])
        except ModhookError:
            raise
        except Exception as error:  # whatever zarr stumbles over in damaged metadata
            raise CubeError(f"{self.path} is damaged: {array.path} cannot be read ({error}).") from error
        return values.astype(object) if self._dtype(array) == "str" else values

    def _dtype(self, array: zarr.Array[Any]) -> str:
        return str(array.dtype) if array.dtype.kind in "fiu" else "str"

    def _say(self, run: Run, labels: Mapping[str, Any]) -> str:
        return ", ".join(f"{d}={v}" for d, v in {**run, **labels}.items()) or "the study"
