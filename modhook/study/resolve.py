"""A study as a plain table, for a cube's attributes, and the comparison of two of them."""

from __future__ import annotations

import contextlib
import enum
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from modhook.plugin.interfaces import Sampler
from modhook.plugin.manager import Plugins
from modhook.plugin.manager import plugins as installed
from modhook.study.sections import MasksSection, StudySection, TrainSection
from modhook.study.study import Named, Study
from modhook.values.text import dotted, written

_ABSENT = object()
_SECTIONS = {"study": StudySection, "train": TrainSection, "masks": MasksSection}
_KINDS = {"task": "tasks", "model": "models", "analyses": "analyses"}
NEW_MEANING = "modhook_new_meaning"
"""In the metadata of an option: its default does not do what was done before there was the option."""

FOR_CONTROL = "modhook_for_control"
"""In the metadata of an option: the control that alone it plays a part in."""


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
    if any(study.controls.kinds()):
        table["controls"] = {k: v for k, v in _plain(study.controls).items() if v is not None}
    for key in study.sweep:
        _remove(table, key.split("."))
    return table


def flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every setting of a table, empty tables left out."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def difference(old: Mapping[str, Any], new: Mapping[str, Any], plugins: Plugins | None = None) -> list[str]:
    """Say how another study differs from the one of a cube: `masks.beta is 3e-5 there and 1e-4 here`.

    `old` and `new` come from `resolved`; `old` is the cube's. Left out is what may change when a cube is continued:
    `study.seeds` (more seeds grow the cube; with fewer, the others stay as they are), `study.description`, all of
    `run`, analyses and controls that only one of them has, and of which stages a control is. So is what says the same in another
    way: an option that the cube does not know, as it is older, and that stands at its default here, `masks.init` left to the
    sampler where the cube has that number, and an option that only a control takes part in (`FOR_CONTROL`) which not both have.
    An empty list means that the cube can be continued.

    `plugins` are those that the study can name; default: everything installed.
    """
    return [
        f"{dotted(path)} is {_shown(there)} there and {_shown(here)} here"
        for path, there, here in _differing(old, new, ())
        if not _may_change(path, there, here)
        and not _says_the_same(path, there, here, new, plugins)
        and not _plays_no_part(path, old, new, plugins)
    ]


def _says_the_same(path: tuple[str, ...], there: Any, here: Any, new: Mapping[str, Any], plugins: Plugins | None) -> bool:
    if path == ("masks", "init") and {type(there), type(here)} == {float, type(None)}:
        sampler = _plugin("samplers", new.get("masks", {}).get("sampler"), plugins)
        starts = sampler is not None and sampler.start is Sampler.start  # everywhere at its `init`
        return starts and sampler.init in (there, here)
    if there is not _ABSENT or here is _ABSENT:
        return False
    options = _options(path, new, plugins)
    field = attrs.fields_dict(options).get(path[-1]) if attrs.has(options) else None
    if field is None or field.metadata.get(NEW_MEANING):
        return False
    return any(_plain(value) == _plain(here) for value in _defaults(field))


def _plays_no_part(path: tuple[str, ...], old: Mapping[str, Any], new: Mapping[str, Any], plugins: Plugins | None) -> bool:
    options = _options(path, new, plugins)
    field = attrs.fields_dict(options).get(path[-1]) if attrs.has(options) else None
    control = None if field is None else field.metadata.get(FOR_CONTROL)
    return control is not None and not all(control in table.get("controls", {}) for table in (old, new))


def _options(path: tuple[str, ...], new: Mapping[str, Any], plugins: Plugins | None) -> Any:
    """Return the class that declares the option at a path."""
    if len(path) == 2 and path[0] in _SECTIONS:
        return _SECTIONS[path[0]]
    table = new.get(path[0], {})
    if len(path) == 3 and path[0] == "analyses":
        name = path[1]
    elif len(path) == 2 and path[0] in ("task", "model"):
        name = table.get("name")
    elif len(path) == 2 and path[0] in ("protocol", "sampler"):
        name = new.get("study" if path[0] == "protocol" else "masks", {}).get(path[0])
    else:
        return None
    return getattr(_plugin(_KINDS.get(path[0], f"{path[0]}s"), name, plugins), "Options", None)


def _plugin(kind: str, name: Any, plugins: Plugins | None) -> Any:
    plugins = plugins or installed()
    return plugins.load(kind, name) if name in plugins.names(kind) else None


def _defaults(field: attrs.Attribute[Any]) -> Iterator[Any]:
    """Yield the default of an option, as it is declared and as it is converted."""
    value: Any = field.default
    convert: Any = field.converter
    if hasattr(value, "takes_self"):  # attrs.Factory, which is a function to type checkers
        value = attrs.NOTHING if value.takes_self else value.factory()
    if value is not attrs.NOTHING:
        yield value
        with contextlib.suppress(Exception):
            yield convert(value)


def _may_change(path: tuple[str, ...], there: Any, here: Any) -> bool:
    if path[0] == "run" or path in (("study", "seeds"), ("study", "description")):
        return True
    if path[0] == "controls" and path[2:] == ("stages",):
        return True
    return path[0] in ("analyses", "controls") and len(path) <= 2 and (there is _ABSENT or here is _ABSENT)


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
