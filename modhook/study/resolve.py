"""A study as a plain table, for a cube's attributes, and the comparison of two of them."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from modhook.study.study import Named, Study
from modhook.values.text import dotted, written

_ABSENT = object()


def resolved(study: Study) -> dict[str, Any]:
    """Return everything that a study says, defaults included, as what JSON can hold, always in the same order.

    The layout is the study file's; swept keys stand under `sweep` alone. `restore` reads it back.
    """
    table: dict[str, Any] = {
        "study": _plain(study.study),
        "task": _named(study.task),
        "model": _named(study.model),
        "train": _plain(study.train),
        "masks": _plain(study.masks),
        "analyses": {name: _plain(options) for name, options in sorted(study.analyses.items())},
        "protocol": _plain(study.protocol),
        "sampler": _plain(study.sampler),
        "run": _plain(study.run),
        "sweep": {key: _plain(values) for key, values in study.sweep.items()},
    }
    for key in study.sweep:
        _remove(table, key.split("."))
    return table


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say how another study differs from the one of a cube: `masks.beta is 3e-5 there and 1e-4 here`.

    `old` and `new` come from `resolved`; `old` is the cube's. Left out is what may change when a cube is continued:
    `study.seeds` (more seeds grow the cube; with fewer, the others stay as they are), `study.description`, all of
    `run`, and analyses that only one of them has. An empty list means that the cube can be continued.
    """
    return [
        f"{dotted(path)} is {_shown(there)} there and {_shown(here)} here"
        for path, there, here in _differing(old, new, ())
        if not _may_change(path, there, here)
    ]


def _may_change(path: tuple[str, ...], there: Any, here: Any) -> bool:
    if path[0] == "run" or path in (("study", "seeds"), ("study", "description")):
        return True
    return path[0] == "analyses" and len(path) <= 2 and (there is _ABSENT or here is _ABSENT)


def _differing(
    old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key in [*old, *(k for k in new if k not in old)]:
        there, here = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            yield from _differing(there, here, (*path, key))
        elif there is _ABSENT or here is _ABSENT or _plain(there) != _plain(here):
            yield (*path, key), there, here


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else written(value)


def _named(one: Named) -> dict[str, Any]:
    return {"name": one.name, **_plain(one.options)}


def plain_table(options: Any) -> dict[str, Any]:
    """Return a plugin's options as a study file has them."""
    found = _plain(options)
    assert isinstance(found, dict)
    return found


def _plain(value: Any) -> Any:
    if attrs.has(type(value)):
        return {f.name: _plain(getattr(value, f.name)) for f in attrs.fields(type(value)) if f.init}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in sorted(value.items())}
    if isinstance(value, set | frozenset):
        return sorted(_plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value.as_posix() if isinstance(value, pathlib.PurePath) else value


def _remove(table: dict[str, Any], keys: list[str]) -> None:
    for key in keys[:-1]:
        if not isinstance(table := table.get(key, {}), dict):
            return
    table.pop(keys[-1], None)
