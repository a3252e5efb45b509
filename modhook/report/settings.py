"""Settings of several studies side by side: those that differ, and those that agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from modhook.report.facts import Facts
from modhook.report.sides import Side
from modhook.study import flat

ABSENT = "\N{EN DASH}"
_LEFT_OUT = ("study.name", "study.description")
"""What names a study and changes nothing in it."""


@attrs.frozen
class Settings:
    """What studies were computed with: (setting, its value in each study) where they differ, (setting, value) where they agree."""

    differ: tuple[tuple[str, tuple[str, ...]], ...]
    agree: tuple[tuple[str, str], ...]

    @property
    def changed(self) -> list[str]:
        """The names of the settings of the study file that differ."""
        return [name for name, _ in self.differ if " " not in name]


def settings(found: Sequence[Side]) -> Settings:
    """Return the settings of these studies; data, code and versions, which have a space in their names, after those of the study file."""
    tables = [dict(_settings(side.facts)) for side in found]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    keys.sort(key=lambda key: " " in key)  # a study that lacks one does not push it behind the data
    rows = [(key, tuple(table.get(key, ABSENT) for table in tables)) for key in keys]
    return Settings(
        tuple(row for row in rows if len(set(row[1])) > 1),
        tuple((key, values[0]) for key, values in rows if len(set(values)) == 1),
    )


def _settings(facts: Facts) -> Iterator[tuple[str, str]]:
    table = facts.table
    for path, value in flat(table):
        if path not in _LEFT_OUT and not path.startswith(("sweep.", "analyses.")):
            yield path, written(value)
    for key, values in dict(table.get("sweep", {})).items():
        several = isinstance(values, list) and len(values) != 1
        yield key, f"each of {', '.join(map(written, values))}" if several else written(values[0])
    analyses = dict(table.get("analyses", {}))
    yield "analyses", ", ".join(analyses) or "none"
    yield from ((path, written(value)) for path, value in flat(analyses, "analyses."))
    attributes = facts.cube.attrs
    for number, sets in dict(attributes.get("data", {})).items():
        for name, fingerprint in sets.items():
            task = f" (task {number})" if len(attributes["data"]) > 1 else ""
            yield f"data: {name}{task}", str(fingerprint)
    for name, files in dict(attributes.get("code", {})).items():
        for file, digest in dict(files).items() if isinstance(files, Mapping) else ():
            yield f"code: {name}, {file}", str(digest)
    yield from ((f"computed: {what.lower()}", words) for what, words in facts.computed)
    for what, version in dict(attributes.get("versions", {})).items():
        yield f"version of {what}", str(version)


def written(value: Any) -> str:
    """Return a setting as a study file writes it; one that is off is `none`."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False)
