"""Masks as pictures, for logs that hold pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modhook_plugins.analyses.mask_images import shrunk


def pictures(masks: Mapping[str, Tensor]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield (parameter, picture) of every mask that has weights: at most 64 x 64 pixels, white: none kept, black: all.

    As in the analysis `mask_images`: rows are the first dimension, everything after it is flattened, and a pixel's grey is the share
    kept of the weights that lie in it. A vector is one row.
    """
    for name, mask in masks.items():
        if mask.numel():
            matrix = mask.detach().cpu().reshape(len(mask) if mask.dim() > 1 else 1, -1)  # (R, C)
            kept = shrunk(matrix)
            share = kept / np.outer(*(_sizes(n, cells) for n, cells in zip(matrix.shape, kept.shape, strict=True)))
            yield name, np.round(255 * (1 - share)).astype(np.uint8)


def _sizes(size: int, cells: int) -> NDArray[np.int64]:
    """Return how many rows or columns each cell has."""
    return np.bincount(np.arange(size) * cells // size, minlength=cells)
