"""The studies that come with modhook, found by their names: `modhook run quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from modhook.errors import StudyError
from modhook.study.source import read, shipped_files


@attrs.frozen
class Shipped:
    """One study, as `modhook list studies` shows it."""

    name: str
    path: Path
    description: str
    variants: tuple[str, ...]


def shipped_studies() -> list[Shipped]:
    """Return the studies that come with modhook, by name, with their descriptions and variants."""
    return [_described(name, path) for name, path in shipped_files().items()]


def study_file(given: Path) -> Path:
    """Return the file of a study: what is given, or NAME.toml there, or else the study of that name that comes with modhook."""
    try:
        if given.is_file():
            return given
        if given.name and not given.suffix and (beside := given.with_name(f"{given.name}.toml")).is_file():
            return beside
    except (OSError, ValueError):
        return given  # reading it says what is wrong
    return shipped_files().get(str(given), given)


def _described(name: str, path: Path) -> Shipped:
    try:
        table: dict[str, Any] = read(path)
    except StudyError as error:
        return Shipped(name, path, str(error), ())
    return Shipped(name, path, table.get("study", {}).get("description", ""), tuple(table.get("variants", {})))
