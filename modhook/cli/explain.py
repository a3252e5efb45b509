"""What an error means for the person at the command line: one sentence and an exit code."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Iterator

from modhook.errors import ModhookError, UserError
from modhook.plugin.culprit import culprit, importing, innermost

GONE = "the current folder has been deleted; change to one that exists, and give the command again."
_INSTALL = "install modhook and what it needs again (python -m pip install -c constraints.txt .)"


def explained(error: Exception) -> tuple[str, int]:
    """Return a sentence, and the exit code: 2 for what the user has to mend, 1 for what failed.

    An error that is not modhook's own is told by its place: a plugin, a library, the environment, or a defect in modhook.
    """
    if folder_is_gone() and any(isinstance(e, FileNotFoundError) for e in _chain(error)):
        return GONE, 2
    if isinstance(error, ModhookError):
        return str(error), 2 if isinstance(error, UserError) else 1
    if "torch" in sys.modules:
        from modhook.run.failure import out_of_memory, reason_of

        if out_of_memory(error):
            return reason_of(error), 1
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
    if library := importing(error):
        return f"{library} cannot be imported in this Python environment ({said}); {_INSTALL}.", 2
    if isinstance(error, locale.Error):
        return f"the locale of this environment cannot be used ({said}); set LC_ALL=C.UTF-8.", 2
    frame, place = culprit(error), innermost(error)
    where = f" at {frame}" if frame else ""
    if frame is not None and not frame.ours and not frame.library:
        return f"{said}{where}: a mistake in that file, which is not modhook's; --debug shows the traceback.", 1
    if place is not None and place.library not in ("", "python"):
        return f"{said}: raised by {place.library}, called{where}; --debug shows the traceback.", 1
    if isinstance(error, OSError) and error.strerror:
        path = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{path}; --debug shows where.", 1
    return f"{said}{where} (this is a defect in modhook; --debug shows the traceback).", 1


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def folder_is_gone() -> bool:
    """Return whether the current folder was deleted: relative names lead nowhere, and torch's libraries cannot be loaded."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False
