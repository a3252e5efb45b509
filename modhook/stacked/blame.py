"""Says whose error it was: the user's or vmap's, in which submodule, and at which of the user's own lines."""

from __future__ import annotations

import dis
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_STANDARD = (*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")), "<frozen")
_PACKAGES = ("site-packages", "dist-packages")
_RAISES = ("RAISE_VARARGS", "RERAISE")
# What torch's own kernels do not raise.
_PLAIN = (KeyError, OSError, NameError, ZeroDivisionError)


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


def users_own(error: BaseException) -> bool:
    """Return whether the user's code raised it, and neither torch nor modhook, which say so what vmap cannot do.

    An error that followed from one of theirs is not the user's own. To be called outside the handler that caught it.
    """
    outer = sys.exc_info()[1]  # what the caller was handling anyway
    todo, seen = [error], set()
    while todo:
        link = todo.pop()
        if link is outer or id(link) in seen:
            continue
        seen.add(id(link))
        if not _raised_by_the_user(link):
            return False
        todo += [other for other in (link.__cause__, link.__context__) if other is not None]
    return True


def from_their_code(error: Exception) -> Exception:
    """Return the error without the frames of torch and modhook that lead to the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)


def _raised_by_the_user(error: BaseException) -> bool:
    """Return whether a `raise` of their code, or of the standard library that it calls, ended the deepest frame."""
    traces = []
    trace = error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    if not traces:
        return False
    files = [trace.tb_frame.f_code.co_filename for trace in traces]
    owner = next((file for file in reversed(files) if not _standard(file)), "")
    if not owner or owner.startswith(_OURS):
        return False
    deepest = traces[-1]
    operation = dis.opname[deepest.tb_frame.f_code.co_code[deepest.tb_lasti]]
    return operation in _RAISES or isinstance(error, _PLAIN)


def _standard(file: str) -> bool:
    return file.startswith(_STANDARD) and not any(part in file for part in _PACKAGES)


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
