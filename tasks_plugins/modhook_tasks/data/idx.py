"""Reads IDX files, the format of MNIST: two zero bytes, type, number of dimensions, sizes (big-endian), then the values."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modhook.errors import DataError

_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the values of an IDX file of unsigned bytes, compressed or not, as a uint8 tensor. Raises `DataError`."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error
    if len(raw) < 4 + 4 * dimensions or tuple(raw[:4]) != (0, 0, _UNSIGNED_BYTE, dimensions):
        raise DataError(f"{path} is no IDX file of unsigned bytes with {dimensions} dimensions; is it another file?")
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    if values.size != int(np.prod(shape)):
        raise DataError(
            f"{path} holds {values.size} values where {shape} need {int(np.prod(shape))}; it is cut off: download it again."
        )
    return torch.from_numpy(values.reshape(shape).copy())
