"""Every error that modhook raises on purpose.

Each message is one sentence or two: what is wrong, where, and what to do. The command line turns them into an exit
code: 2 for a user's mistake (`UserError`), 1 for a run that failed (`RunError`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModhookError(Exception):
    """Base of all errors raised by modhook."""


class UserError(ModhookError, ValueError):
    """Something the user gave is wrong; nothing was run and nothing was written."""


class StudyError(UserError):
    """A study file has mistakes. `problems` lists every one of them, each with its path in the file."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {p}" for p in self.problems)
        count = f"{len(self.problems)} mistake" + ("s" if len(self.problems) != 1 else "")
        super().__init__(f"{where}: {count}{lines}")


class PatternError(UserError):
    """A parameter pattern matches nothing."""


class MaskError(UserError):
    """Masks that do not belong together, or do not belong to this model."""


class WeightsError(UserError):
    """Weights that do not fit the network."""


class StackError(UserError):
    """A model that cannot be run exactly under stacked parameters."""


class PluginError(UserError, LookupError):
    """A plugin that is missing, broken or declared twice."""


class CubeError(UserError):
    """A cube that is missing, damaged, of another study, or that lacks what is asked of it."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or state that a checkpoint cannot hold."""


class DataError(UserError):
    """Data of a task that is missing, damaged or in the wrong layout."""


class RunError(ModhookError, RuntimeError):
    """A run that was started correctly and failed."""


class StorageError(ModhookError, OSError):
    """The place of a cube cannot be read or written any more: no space, no permission, connection cut.

    It stops a whole study, where a `RunError` fails one run; what was finished before is safe.
    """


def near_miss(word: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'steps'?)` for the closest valid word, or an empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listing(names: Iterable[str], limit: int = 20) -> str:
    """Join names for an error message, cut after `limit` of them."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > limit else shown or "none"
