"""Reads the masks that the paper's own code has exported, into masks of a stock network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modhook.errors import MaskError, WeightsError
from modhook.masks.masks import Masks
from modhook.network.files import read_file
from modhook.network.reference import KNOWN, matched, saved

_EXPORT = "stage_final_masks"
_ADVICE = "take the files as the reference wrote them"
_multiarray: Any = np.array([0]).__reduce__()[
    0
]  # what numpy's arrays name in a pickle, by old and new names of its module
_ARRAYS = (
    (_multiarray, "numpy.core.multiarray._reconstruct"),
    (_multiarray, "numpy._core.multiarray._reconstruct"),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    (np.dtypes.Float32DType, "numpy.dtypes.Float32DType"),
    (np.dtypes.Float64DType, "numpy.dtypes.Float64DType"),
)


def reference_masks(path: str | Path, model: nn.Module) -> dict[int, Masks]:
    """Return the masks that the paper's own code learned, by number of the stage there (0 is the control, or the first).

    A weight is kept where its logit is at least 0, as the reference evaluates. No code in a file is run.

    Args:
        path: its folder `export/stage_final_masks`, the folder of one stage in it (`stage_0`), a folder above them, or a checkpoint
            (`checkpoint/model-60000.pth`).
        model: a network with the same layers; see `reference_weights`. It should hold the weights that the masks were learned on.

    Raises:
        MaskError: no masks there, a damaged file, one that names Python objects, or layers that do not fit.
    """
    path = Path(path)
    try:
        if path.is_file():
            found = saved(read_file(path, KNOWN, "masks", _ADVICE), str(path))
            stages: dict[int, Mapping[str, Tensor]] = {} if found is None else dict(found.logits)
        else:
            stages = {int(f.name.removeprefix("stage_")): _logits(f) for f in _folders(path)}
        if not stages:
            raise MaskError(
                f"{path} holds no masks of the reference; give its folder {_EXPORT}, one of the folders stage_0, stage_1, ... in it, "
                "or a checkpoint."
            )
        return {stage: _masks(stages[stage], model, f"stage {stage} of {path}") for stage in sorted(stages)}
    except WeightsError as error:
        raise MaskError(str(error)) from error


def _folders(path: Path) -> list[Path]:
    if re.fullmatch(r"stage_\d+", path.name):
        return [path] if path.is_dir() else []
    for folder in (path, path / _EXPORT, path / "export" / _EXPORT):
        if found := [f for f in folder.glob("stage_*") if re.fullmatch(r"stage_\d+", f.name) and f.is_dir()]:
            return found
    return []


def _logits(folder: Path) -> dict[str, Tensor]:
    """Return the logits of one stage, by the reference's names of the parameters: one file each."""
    found = {}
    for file in sorted(folder.glob("*.pth")):
        array = read_file(file, _ARRAYS, "masks", _ADVICE)
        if isinstance(array, Tensor):
            array = array.numpy()
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            raise MaskError(f"{file} holds no logits of a mask, which are an array of floating-point numbers.")
        found[file.stem] = torch.from_numpy(np.array(array))
    return found


def _masks(logits: Mapping[str, Tensor], model: nn.Module, where: str) -> Masks:
    placed = matched(logits, model, where, whole=False)
    if broken := [name for name, (tensor, _, _) in placed.items() if not bool(tensor.isfinite().all())]:
        raise MaskError(f"the logits of {broken[0]} in {where} are not finite.")
    return Masks({name: tensor >= 0 for name, (tensor, _, _) in placed.items()}, model)
