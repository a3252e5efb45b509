"""Deleting a cube, also one that is damaged; never anything else that lies in its place."""

from __future__ import annotations

import json

from modhook.cube.metadata import ROOT
from modhook.cube.place import Place, Where
from modhook.cube.store import open_store
from modhook.cube.where import place_of
from modhook.errors import CubeError, StorageError


def removable(path: Where) -> Place:
    """Return the place of the cube at a path or URL, whole, damaged or of another format, of which nothing is lost but a cube.

    Raises:
        CubeError: what lies there is no cube. StorageError: it cannot be read.
    """
    place = place_of(path)
    try:
        open_store(place, read_only=True)
    except StorageError:
        raise
    except CubeError as error:
        if not _was_a_cube(place):
            raise CubeError(
                f"--fresh does not delete {place}, which holds other files than those of a cube ({error}); move it away, or use "
                "another --out."
            ) from error
    return place


def _was_a_cube(place: Place) -> bool:
    try:
        root = place.read(ROOT)
    except (FileNotFoundError, NotADirectoryError, CubeError):
        return place.looks_like_a_cube()
    if b'"modhook_format"' in root:
        return True
    try:
        json.loads(root)
    except (ValueError, RecursionError):
        return place.looks_like_a_cube()
    return False  # a store of another program
