"""What went wrong in a run, in one sentence for the cube, and what counts as numbers that went wrong."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from modhook.cube import Where, place_of
from modhook.errors import CubeError, GoneError, ModhookError, RunError, StorageError
from modhook.plugin.culprit import DEBUG, culprit, traceback_of
from modhook.plugin.interfaces import Tracker

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "not enough memory")
_NO_STORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def reason_of(error: BaseException) -> str:
    """Return why a run failed: modhook's own sentence, or type, message and place of any other error.

    The place is the innermost frame outside torch and modhook: the line of a plugin's author, if there is one.
    """
    if isinstance(error, ModhookError):
        return _plain(str(error))
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    if out_of_memory(error):
        return _plain(
            f"out of memory ({first or type(error).__name__}); use a smaller batch or network, fewer masks.samples or a device with more."
        )
    frame = culprit(error)
    return _plain(f"{type(error).__name__}: {first}{f' ({frame})' if frame else ''}")


def show_traceback(error: BaseException, tracker: Tracker) -> None:
    """Tell a tracker the traceback of what failed a run, where `--debug` asked for it."""
    if os.environ.get(DEBUG):
        tracker.message(traceback_of(error))


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory was short: Python's, the CPU allocator's or a GPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def stops_the_study(error: BaseException) -> bool:
    """Return whether an error would hit every other run too: the store is full or cannot be written."""
    return isinstance(error, OSError) and (isinstance(error, ModhookError) or error.errno in _NO_STORE)


@contextlib.contextmanager
def told_what_is_safe() -> Iterator[None]:
    """Add to a failure of the storage, whether it refused to write or to read, that the work goes on from there."""
    try:
        yield
    except GoneError:
        raise
    except StorageError as error:
        raise StorageError(
            f"{str(error).rstrip('.')}; every stage that was finished before is safe there: give the same command again and it "
            "continues."
        ) from error


@contextlib.contextmanager
def gone_or_damaged(path: Where) -> Iterator[None]:
    """Within it a cube that another process is deleting is said to be gone, and not that it is damaged."""
    try:
        yield
    except CubeError:
        place_of(path).await_deletion()
        raise


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise `RunError` if a tensor holds a number that is not finite: what learned it has diverged."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RunError(f"{what} {name!r} are not finite: the training has diverged; lower the learning rate.")


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
