"""Every error that modhook raises on purpose.

Each message is one sentence or two: what is wrong, where, and what to do. The command line turns them into an exit
code: 2 for a user's mistake (`UserError`), 1 for a run that failed (`RunError`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

# What moves the cursor, rings, changes colours or turns the direction of writing, and half a surrogate pair; line breaks
# and tabs stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, line: bool = False) -> str:
    """Return a text that a terminal shows and does not obey: control characters as `\\x1b`; with `line` line breaks, too."""
    shown = _CONTROL.sub(lambda c: c[0].encode("unicode_escape").decode("ascii"), text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if line else shown


class ModhookError(Exception):
    """Base of all errors raised by modhook. What it says may name things of a stranger's cube, so it is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ModhookWarning(UserWarning):
    """Something was done otherwise than asked for, such as fewer steps; what came of it can be used."""


class TrustWarning(ModhookWarning):
    """Masks were learned as asked for, and there is a reason not to believe in them yet."""


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


class MissingNameError(UserError, KeyError):
    """A name that a mapping does not have; a `KeyError`, as mappings promise, that says which there are."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))  # a KeyError writes its sentence in quotes


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


class DamageError(CubeError):
    """A file of a cube that is lost, changed, or in the place of another one."""


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


class GoneError(StorageError):
    """The cube has been moved or deleted while it was being written: nothing of it is safe there."""


def missing(what: str, name: object, valid: Iterable[object]) -> MissingNameError:
    """Return the error of a name that is not there: `what` names the kind, "the masks have no parameter"."""
    names = [str(v) for v in valid]
    near = near_miss(name, names) if isinstance(name, str) else ""
    return MissingNameError(f"{what} {name!r}{near}; there are {listing(names)}.")


def near_miss(word: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'steps'?)` for the closest valid word, or an empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listing(names: Iterable[str], limit: int = 20) -> str:
    """Join names for an error message, cut after `limit` of them."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > limit else shown or "none"


def near_file(path: str | os.PathLike[str], suffixes: Iterable[str] = (), folders: Iterable[str] = ()) -> str:
    """Return ` (did you mean 'studies/scan.toml'?)` for the file whose name is closest, or an empty string.

    Looked at are the folder of `path`, the folders whose names are close to it, and `folders`, below the current one. With
    `suffixes`, only names that end so count, and they may be missing in `path`. A name that stands elsewhere as it is comes first.
    """
    wanted, suffixes = Path(path), tuple(suffixes) or (Path(path).suffix,)
    here = [wanted.parent, *_alike(wanted.parent), *map(Path, folders)]
    found: dict[Path, str] = {}
    for folder in here:
        for name in _names(folder):
            if name.endswith(suffixes):
                found.setdefault(folder / name, name)
    names = [wanted.name, *(wanted.name + s for s in suffixes if s and not wanted.name.endswith(s))]
    for name in names:
        close = difflib.get_close_matches(name, list(found.values()), n=1, cutoff=0.6)
        if close:
            return f" (did you mean {str(next(p for p, n in found.items() if n == close[0]))!r}?)"
    return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))[:10_000]
    except (OSError, ValueError):
        return []


def _alike(folder: Path) -> list[Path]:
    """Return the folders beside one that is not there whose names are close to its name."""
    if folder.is_dir() or folder == folder.parent:
        return []
    beside = [n for n in _names(folder.parent) if (folder.parent / n).is_dir()]
    return [folder.parent / n for n in difflib.get_close_matches(folder.name, beside, n=3, cutoff=0.6)]
