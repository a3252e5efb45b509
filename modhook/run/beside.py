"""Files that belong to a cube and lie beside it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from modhook.cube import Where, place_of


def beside(cube: Where, ending: str, *, hidden: bool = False) -> Path:
    """Return the folder `NAME.zarr.ENDING` of the cube at this path; that of a cube at a URL lies in the current folder."""
    place, dot = place_of(cube), "." if hidden else ""
    if isinstance(place.path, Path):
        return place.path.with_name(f"{dot}{place.name}.{ending}")
    # Cubes of one name at two URLs have their own.
    unique = hashlib.blake2b(place.path.encode(), digest_size=4).hexdigest()
    return Path(f"{dot}{place.name}-{unique}.{ending}").absolute()


def readable(text: str) -> str:
    """Return the beginning of a text as a file name can hold it."""
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", text)[:120]
