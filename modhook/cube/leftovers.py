"""What killed writers leave in a store."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modhook.cube.place import Folder, Where
from modhook.cube.where import place_of

# zarr writes a file beside its place and then moves it there.
_HALF_WRITTEN = re.compile(r".+\.[0-9a-f]{32}\.partial")


def remove_leftovers(path: Where) -> None:
    """Remove files of the store at `path` that were never finished; nobody else may be writing to it.

    At a URL there are none: an object is there whole or not at all.
    """
    place = place_of(path)
    if not isinstance(place, Folder):
        return
    place.remove_deleted()
    for folder, _, files in os.walk(place.path):
        for name in files:
            if _HALF_WRITTEN.fullmatch(name):
                Path(folder, name).unlink(missing_ok=True)
