"""The study that a cube holds, as it stands in its attributes."""

from __future__ import annotations

from typing import Any

from modhook.cube import Cube
from modhook.errors import CubeError


def study_table(cube: Cube) -> dict[str, Any]:
    """Return the table of a cube's study. Raises `CubeError` where there is none."""
    found = cube.attrs.get("study")
    if not isinstance(found, dict) or not isinstance(found.get("analyses", {}), dict):
        raise CubeError(f"{cube.path} is damaged: its attribute 'study' is missing; restore its zarr.json from a copy.")
    return found
