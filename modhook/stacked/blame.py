"""Says whose error it was: the submodule, and the user's own line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def innermost(model: nn.Module, error: BaseException) -> list[str]:
    """Return the submodules in whose forward the error was raised, the innermost first; the model itself is ''."""
    names = {id(module): name for name, module in model.named_modules()}
    found: list[str] = []
    for frame in _frames(error.__traceback__):
        owner = frame.f_locals.get(next(iter(frame.f_code.co_varnames), ""))  # `self`, by whatever name
        if frame.f_code.co_name == "forward" and id(owner) in names:
            found.append(names[id(owner)])
    return found[::-1]


def own_line(error: BaseException) -> str:
    """Return `file.py, line 7: x = self.first(x)`, the deepest line that is neither torch's nor modhook's; "" if none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*_OURS, "<frozen", "<string")):
            return f"{frame.filename}, line {frame.lineno}: {frame.line}"
    return ""


def blamed(model: nn.Module, error: BaseException, where: str) -> str:
    """Return a note for the user's error: what ran, the innermost submodule, and the user's own line."""
    inside = next((name for name in innermost(model, error) if name), "")
    line = own_line(error)
    submodule = f", in submodule {inside!r}" if inside else ""
    return f"modhook: raised {where}{submodule}{f', at {line}' if line else ''}"


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
