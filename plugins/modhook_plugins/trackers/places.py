"""Where trackers put their files."""

from __future__ import annotations

import re
from pathlib import Path


def beside(cube: str, what: str) -> Path:
    """Return the folder `NAME-what` beside a local cube `NAME.zarr`; of a remote one, in the current directory."""
    folder, name = ("", cube.rstrip("/").rpartition("/")[2]) if "://" in cube else (Path(cube).parent, Path(cube).name)
    return Path(folder, f"{name.removesuffix('.zarr')}-{what}")


def plain(label: str) -> str:
    """Return a run's label as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "_", label)
