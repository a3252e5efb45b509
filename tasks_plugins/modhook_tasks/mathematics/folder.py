"""Reads the official data from an extracted folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modhook.errors import DataError
from modhook_tasks.mathematics.contents import FOLDER, Characters, Contents, lacks
from modhook_tasks.mathematics.modules import SETS


def find(place: Path) -> Path:
    """Return the folder that holds `train-easy`: the one named, or the official one inside. Raises `DataError`."""
    if not place.is_dir():
        raise DataError(f"task.folder {place} is neither a folder nor an archive; name the one that holds {FOLDER}.")
    return place / FOLDER if (place / FOLDER).is_dir() else place


def every_file(folder: Path) -> list[Path]:
    """Return all text files of the five sets, sorted; hidden files, which some systems add, are none of them."""
    return sorted(path for found in SETS for path in (folder / found).glob("[!.]*.txt"))


def read(folder: Path, files: Mapping[str, str], characters: str | None) -> Contents:
    """Return the texts of `files` ({set: path}); the characters of all files are read unless they are known.

    Raises:
        DataError: a file is missing, unreadable, or no plain text.
    """
    if missing := [name for name in files.values() if not (folder / name).is_file()]:
        raise lacks(str(folder), missing)
    try:
        if characters is None:
            seen = Characters()
            for path in every_file(folder):
                seen.add(path.read_bytes(), str(path))
            characters = seen.sorted()
        return Contents({found: (folder / name).read_bytes() for found, name in files.items()}, characters)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
