"""Files of weights, loaded instead of trained or put in the place of masked ones: one for all runs, or one per seed and setting.

`train.weights = "base-{seed}.safetensors"` names one file per seed. A setting of the run in braces, such as `{model.hidden}`,
is written as the cube labels it: `[400, 400, 200]` is `400-400-200`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from modhook.errors import listing, near_file, near_miss
from modhook.plugin.offered import offered_weights
from modhook.study.labels import spelled
from modhook.study.study import Named, Study
from modhook.values.bounds import Rejected
from modhook.values.text import written

_PLACE = re.compile(r"\{([^{}]*)\}")
_SECTIONS = ("task", "model", "train", "masks")
"""Sections whose settings a name may contain."""
_FILES = ("weights", "off")
"""Settings that name files themselves."""
KINDS = ("zero", "shuffled", "redrawn")
"""What `masks.off` may be beside a file's name; as in `modhook.masks.off`, which needs torch."""


def weights_file(study: Study, seed: int) -> pathlib.Path | None:
    """Return the file of weights that a run loads instead of training, or None; a relative name starts at the study file."""
    return None if study.train.weights is None else _place(study, file_name(study, study.train.weights, seed))


def off_file(study: Study, seed: int) -> pathlib.Path | None:
    """Return the file of what a run's masked weights become (`masks.off`), or None where that is no file."""
    off = study.masks.off
    return None if off in KINDS or offered_weights(off) is not None else _place(study, file_name(study, off, seed))


def file_name(study: Study, name: str, seed: int) -> str:
    """Return the name of a file as the study gives it, its placeholders filled."""
    return filled(name, seed, {name: getattr(study, name) for name in _SECTIONS})


def _place(study: Study, name: str) -> pathlib.Path:
    return (study.path.parent if study.path else pathlib.Path()) / name


def filled(name: str, seed: int, sections: Mapping[str, Any]) -> str:
    """Return a file's name with its placeholders filled. Raises `Rejected` for one that is neither the seed nor a setting."""
    valid = {"seed": str(seed), **{f"{s}.{key}": text for s in _SECTIONS for key, text in _settings(sections.get(s))}}
    if unknown := [key for key in _PLACE.findall(name) if key not in valid]:
        raise Rejected(
            f"{written(name)} has the unknown placeholder {{{unknown[0]}}}{near_miss(unknown[0], valid)}; "
            "write {seed}, or a setting of the run such as {model.hidden}"
        )
    return _PLACE.sub(lambda found: valid[found[1]], name)


def check_weights(name: str, seeds: int, sections: Mapping[str, Any], file: pathlib.Path) -> str:
    """Return what is wrong with the files that a study file names, or an empty text.

    A section that is None has mistakes of its own; names that need its settings are left alone.
    """
    if "\0" in name:
        return f"there is no file {name!r}"
    if None in sections.values() and {*_PLACE.findall(name)} - {"seed"}:
        return ""
    try:
        names = {filled(name, seed, sections): None for seed in range(1, seeds + 1)}
    except Rejected as error:
        return str(error)
    missing = [str(file.parent / n) for n in names if not (file.parent / n).is_file()]
    if not missing:
        return ""
    where = "the name is relative to the study file"
    if len(names) == 1:
        return f"there is no file {missing[0]!r}{near_file(missing[0])}; {where}"
    return f"of {len(names)} files {len(missing)} are not there: {listing(map(repr, missing), 10)}; {where}"


def _settings(section: Any) -> Iterator[tuple[str, str]]:
    """Yield what can be written in a file's name, as the cube labels it."""
    options = section.options if isinstance(section, Named) else section
    table = options if isinstance(options, Mapping) else {}
    if attrs.has(type(options)):
        table = {f.name: getattr(options, f.name) for f in attrs.fields(type(options)) if f.init}
    for key, value in table.items():
        if key not in _FILES and isinstance(value, bool | int | float | str | list | tuple):
            yield key, spelled(value)
