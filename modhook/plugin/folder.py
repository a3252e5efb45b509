"""The folder that names of files in a study are relative to, for tasks and networks whose options name files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

_FOLDER: ContextVar[Path] = ContextVar("the study's folder", default=Path())


@contextlib.contextmanager
def names_relative_to(folder: Path) -> Iterator[None]:
    """Within it `study_path` starts at this folder."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def study_path(name: str) -> Path:
    """Return where a file or folder is that a study names: relative names start at the study file, `~` is the home folder.

    For the constructor, `load` and `build` of tasks and networks. A study that is read back from a cube has no file: there, and
    everywhere else, names start at the current folder.
    """
    return _FOLDER.get() / Path(name).expanduser()
