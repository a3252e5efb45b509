"""How one variable, one coordinate and the whole tree are put on disk with zarr."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from modhook.cube.labels import Label, label_array
from modhook.cube.metadata import Draft
from modhook.cube.resolve import Slot
from modhook.plugin.variables import Variable

# The checksum comes last, over the bytes as they lie on disk: whatever flips is noticed before anything is decoded.
COMPRESSORS = (ZstdCodec(level=3), Crc32cCodec())
# Chunks that hold only the fill value are written too, so that a missing file always means "never written".
CONFIG: Any = {"write_empty_chunks": True}
MAX_CHUNK = 2**24
"""Most elements of one chunk along its last dimension; a chunk is compressed as a whole in memory."""
_LABELS_PER_CHUNK = 1024


def fill_value(dtype: str) -> Any:
    """Return what an unwritten element reads as: NaN, 0 or an empty string."""
    return np.nan if dtype.startswith("float") else "" if dtype == "str" else 0


def chunks_of(slot: Slot) -> tuple[int, ...]:
    """Return chunks that never span two runs or two stages, so that two writers never share a file."""
    own = len(slot.variable.dims)
    run = [1] * (len(slot.shape) - own)
    rest = [1 if d == "stage" else max(1, n) for d, n in zip(slot.variable.dims, slot.shape[len(run) :], strict=True)]
    if rest:
        rest[-1] = min(rest[-1], MAX_CHUNK)
    return (*run, *rest)


def create_variable(root: zarr.Group, slot: Slot) -> None:
    """Create an empty variable; one that is there already is replaced. Its group must exist."""
    variable = slot.variable
    attributes = {"long_name": variable.doc, "description": variable.doc, "units": variable.units, **variable.attrs}
    root.create_array(
        variable.name,
        shape=slot.shape,
        chunks=chunks_of(slot),
        dtype=dtype_of(variable),
        fill_value=fill_value(variable.dtype),
        compressors=COMPRESSORS,
        dimension_names=slot.dims,
        attributes=attributes,
        config=CONFIG,
        overwrite=True,
    )


def create_coordinate(group: zarr.Group, name: str, labels: Sequence[Label]) -> None:
    """Create a coordinate and write its labels.

    A chunk is longer than the labels, so that growing rewrites one small file, which a reader that still sees the old
    shape can read as well.
    """
    data = label_array(labels)
    text = data.dtype == object
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=(_LABELS_PER_CHUNK,),
        dtype=str if text else data.dtype,
        fill_value="" if text else 0,
        compressors=COMPRESSORS,
        dimension_names=(name,),
        config=CONFIG,
        overwrite=True,
    )
    if data.size:
        array[:] = data


def dtype_of(variable: Variable) -> Any:
    """Return the dtype as zarr takes it."""
    return str if variable.dtype == "str" else np.dtype(variable.dtype)


def dim_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of an array's dimensions; fewer than it has dimensions if some are unnamed."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    return tuple(n for n in names if n is not None)


def consolidate(store: Draft) -> None:
    """Write all metadata into the root's one file; replacing that file is the moment at which changes become visible."""
    with _format_3_can_consolidate():
        zarr.consolidate_metadata(store, zarr_format=3)
    store.commit()


@contextlib.contextmanager
def _format_3_can_consolidate() -> Iterator[None]:
    with warnings.catch_warnings():
        # zarr says that the specification of format 3 does not have consolidated metadata yet; xarray and zarr both read it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", zarr.errors.ZarrUserWarning)
        yield
