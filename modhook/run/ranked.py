"""The cube under torchrun: one writer, and one answer for all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modhook.cube import Cube
from modhook.cube.contents import Run
from modhook.steps.ranks import from_first, rank


class RankedCube(Cube):
    """A cube of which the first rank alone is the writer; what decides the course of a run is read there for all."""

    def write(self, name: str, value: Any, run: Run, **labels: Any) -> None:
        """Write it, on the first rank."""
        if rank() == 0:
            super().write(name, value, run, **labels)

    def still_there(self) -> None:
        """Ask on the first rank."""
        if rank() == 0:
            super().still_there()

    def set_status(self, *arguments: Any, **options: Any) -> None:
        """Write it on the first rank; all others wait until it, and all before it, is on disk."""
        super().set_status(*arguments, **options)
        from_first([0])

    def read(self, name: str, run: Run, **labels: Any) -> NDArray[Any]:
        """Read it; how far runs are, from the first rank."""
        value = super().read(name, run, **labels)
        if not name.startswith("runs/") or value.dtype.kind not in "iu":
            return value
        told = from_first([int(v) for v in value.reshape(-1)])
        return np.array(told, dtype=value.dtype).reshape(value.shape)
