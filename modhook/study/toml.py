"""A resolved study as a study file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A setting that is off reads None here, but the file's way to say it is 0: leaving the key out would mean its default.
_OFF = (("train", "clip"),)


def as_toml(table: Mapping[str, Any], variant: str | None = None) -> str:
    """Return the text of a study file that means the same as a table made by `resolved`.

    Every setting is written, defaults included. A setting that is `None` stands for its default and is left out.

    Args:
        table: from `resolved`, or a cube's attribute `study`.
        variant: a name for which an empty `[variants.NAME]` is added, so that `modhook run --variant NAME` writes and
            continues the cube of that variant.
    """
    import tomlkit

    kept = {key: value for key, value in table.items() if value or key not in ("protocol", "sampler", "analyses", "sweep")}
    plain = _without_none(kept, ())
    if variant is not None:
        plain["variants"] = {variant: {}}
    return tomlkit.dumps(plain)


def _without_none(table: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            made[key] = _without_none(value, (*path, key))
        elif value is not None:
            made[key] = value
        elif (*path, key) in _OFF:
            made[key] = 0
    return made
