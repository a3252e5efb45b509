"""The masks of a cube as plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from modhook.cube import masks_from


def masks(cube: xr.DataTree, seed: int, stage: str, **sweep: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Masks of one stage as arrays."""
    return {n: m.numpy() for n, m in masks_from(cube, seed, stage, **sweep).items()}
