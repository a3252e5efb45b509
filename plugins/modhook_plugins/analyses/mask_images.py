"""Mask images (reference, sections 6 and 7): where in each tensor are the weights of one function, of several, of none?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhook import Analysis, Masks, Task, Variable

if TYPE_CHECKING:
    from modhook import FinishedRun

CELLS = 64
"""Most cells of a picture along each side."""
_SHARED = ("several", "control only", "none")


class MaskImages(Analysis):
    """Per tensor a picture of at most 64 x 64 cells; a cell counts its weights by who keeps them.

    A tensor is a matrix, everything after its first dimension flattened; a vector is one column. Row r of R lies in cell
    floor(r * H / R) of H = min(R, 64), columns likewise; cells that a smaller tensor does not have are NaN. Each weight is
    of exactly one kind: kept by one sub-function's mask alone, by several, by the control's alone, or by none.
    """

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `mask_images`."""
        dims = ("parameter", "row", "column", "kind")
        return (
            Variable("mask_images/counts", dims, "float32", "weights of each kind in the cell", units="weights"),
            Variable(
                "mask_images/shape", ("parameter", "axis"), "float64", "the matrix' rows and columns", units="weights"
            ),
        )

    def labels(self, task: Task, stages: Sequence[str]) -> dict[str, list[Any]]:
        """Label the cells from 0, and the kinds: the sub-functions by name, then those of several, control and nobody."""
        cells = list(range(CELLS))
        kinds = [*_functions(task, stages), *_SHARED]
        return {"row": cells, "column": cells, "kind": kinds, "axis": ["row", "column"]}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Draw every tensor."""
        order = [str(x) for x in run.coordinates("mask_images/counts")["parameter"]]
        functions = _functions(run.task, run.stages)
        counts = np.full((len(order), CELLS, CELLS, len(functions) + len(_SHARED)), np.nan, dtype=np.float32)
        shape = np.full((len(order), 2), np.nan)
        control = run.masks[run.stages[0]]
        for name in control:
            p, kinds = order.index(name), _kinds([run.masks[s] for s in functions], control, name)
            picture = np.stack([shrunk(k) for k in kinds], -1)  # (H, W, kinds)
            counts[p, : picture.shape[0], : picture.shape[1]] = picture
            shape[p] = kinds[0].shape
        return {"mask_images/counts": counts, "mask_images/shape": shape}


def shrunk(kept: Tensor) -> NDArray[np.float32]:
    """Return how many weights of a bool matrix (R, C) each cell holds: (min(R, 64), min(C, 64)) float32."""
    picture = kept.float()
    for axis in (0, 1):
        size = picture.shape[axis]
        cell = torch.arange(size, device="cpu") * min(size, CELLS) // size  # (size,)
        shape = [min(size, CELLS) if a == axis else n for a, n in enumerate(picture.shape)]
        picture = torch.zeros(shape, device="cpu").index_add_(axis, cell, picture)
    return picture.numpy()


def _kinds(functions: Sequence[Masks], control: Masks, name: str) -> list[Tensor]:
    """Return one bool matrix (R, C) per kind; every weight is in exactly one."""
    keepers = torch.stack([_matrix(m[name]) for m in functions]) if functions else _matrix(control[name])[None][:0]
    times = keepers.sum(0)  # (R, C)
    alone = _matrix(control[name]) & (times == 0)  # without a control its place has the first stage: a sub-function
    return [*(k & (times == 1) for k in keepers), times > 1, alone, (times == 0) & ~alone]


def _matrix(mask: Tensor) -> Tensor:
    return mask.reshape(len(mask), -1)


def _functions(task: Task, stages: Sequence[str]) -> list[str]:
    return list(stages[1:] if task.control else stages)
