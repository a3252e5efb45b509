"""Dotted keys: variants, `--set` and sweeps change a plain table by paths."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import attrs

from modhook.errors import near_miss
from modhook.plugin.code import is_code
from modhook.values.text import Path, dotted, written

Keys = tuple[str, ...]

# {a key: those that say the same thing in another way}; of such keys a study has one.
_RIVALS: dict[Keys, tuple[Keys, ...]] = {
    ("masks", "density"): (("masks", "beta"), ("masks", "beta_start"), ("masks", "relative_beta"), ("masks", "among"), ("masks", "cut")),
    ("masks", "beta"): (("masks", "density"),),
    ("masks", "beta_start"): (("masks", "density"),),
    ("masks", "relative_beta"): (("masks", "density"),),
    ("masks", "among"): (("masks", "density"),),
    ("masks", "cut", "density"): (
        ("masks", "density"),
        ("masks", "cut", "within"),
        ("masks", "cut", "split"),
        ("masks", "cut", "metric"),
    ),
    ("masks", "cut", "within"): (("masks", "density"), ("masks", "cut", "density")),
}


@attrs.define
class Draft:
    """A study's table while it is being put together: the sections, the sweep, and where changed values came from."""

    table: dict[str, Any]
    sweep: dict[str, Any]
    origins: dict[Path, str] = attrs.field(factory=dict)
    mistakes: list[tuple[Path, str]] = attrs.field(factory=list)


def draft(raw: Mapping[str, Any]) -> Draft:
    """Return a copy of a file's table, without variants, the sweep's keys made flat (`masks.beta`)."""
    table = {key: deepcopy(value) for key, value in raw.items() if key not in ("variants", "sweep")}
    sweep = raw.get("sweep", {})
    made = Draft(table, {})
    if isinstance(sweep, Mapping):
        made.sweep = {".".join(keys): value for keys, value in leaves(sweep)}
    else:
        made.mistakes.append((("sweep",), f"{written(sweep)} is not a table; write [sweep]"))
    return made


def leaves(table: Mapping[str, Any], before: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield every value of nested tables with its keys; an empty table is a value.

    Dots in keys separate keys, but in names of code, such as `my_task.py:MyAnalysis`.
    """
    for key, value in table.items():
        keys = (*before, *_split(key))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, keys)
        else:
            yield keys, value


def apply_variant(made: Draft, variants: Any, name: str) -> None:
    """Put a variant's values over the file's. A value for a swept key replaces that key's sweep, and its rivals' values."""
    if not isinstance(variants, Mapping) or name not in variants:
        valid = list(variants) if isinstance(variants, Mapping) else []
        has = f"valid variants: {', '.join(valid)}" if valid else "this study has no variants"
        made.mistakes.append((("variants",), f"unknown variant {name!r}{near_miss(name, valid)}; {has}"))
        return
    if not isinstance(variants[name], Mapping):
        return  # reported by whoever checks all variants
    changes = sorted(leaves(variants[name]), key=lambda change: change[0][0] == "sweep")  # sweeps last
    for keys, value in changes:
        for swept in [s for s in made.sweep if keys[0] != "sweep" and _overlap(keys, tuple(s.split(".")))]:
            del made.sweep[swept]
        _change(made, keys, value, f"from [variants.{name}]")


def apply_override(made: Draft, text: str) -> None:
    """Apply one `--set key=value`; the value is read as TOML, or else as a text.

    `masks.density` takes the place of the study's `masks.beta` and `masks.cut`, and so on (`_RIVALS`).
    """
    key, equals, value = text.partition("=")
    keys = _keys(key.strip())
    if not equals or keys is None:
        made.mistakes.append(((), f"--set {text}: write --set key=value, such as --set masks.steps=100"))
        return
    flat, read = tuple(part for key in keys for part in _split(key)), _value(value.strip())
    for leaf, inner in leaves(read, flat) if isinstance(read, Mapping) and read else [(flat, read)]:
        swept = [s for s in made.sweep if leaf[0] != "sweep" and _overlap(leaf, tuple(s.split(".")))]
        for name in swept:
            example = f"""--set 'sweep."{name}"=[{written(inner)}]'"""
            made.mistakes.append(
                (leaf, f"cannot be given by --set, because [sweep] runs over {name!r}; narrow that with {example}")
            )
        if not swept:
            _change(made, leaf, inner, "from --set")


def put(table: dict[str, Any], keys: Sequence[str], value: Any) -> str:
    """Set a value in nested tables, in place; tables are merged. Return what is wrong, or an empty text."""
    for n, key in enumerate(keys[:-1]):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            return f"cannot be set, because {dotted(keys[: n + 1])} is {written(inner)} and no table"
        table = inner
    if isinstance(value, Mapping) and isinstance(table.get(keys[-1]), dict):
        return "".join(put(table, [keys[-1], *k], v) for k, v in leaves(value))
    table[keys[-1]] = deepcopy(value)
    return ""


def _change(made: Draft, keys: Keys, value: Any, origin: str) -> None:
    if keys[0] == "sweep":
        if len(keys) == 1 and value == {}:
            made.sweep.clear()
        elif len(keys) == 1:
            made.mistakes.append((keys, f"{written(value)} is not a table ({origin})"))
        else:
            made.sweep[".".join(keys[1:])] = value
            made.origins["sweep", ".".join(keys[1:])] = origin
    elif keys[0] == "variants":
        made.mistakes.append((keys, f"variants cannot be set ({origin})"))
    else:
        for rival in _RIVALS.get(keys, ()):
            _remove(made, rival, origin)
        if wrong := put(made.table, keys, value):
            made.mistakes.append((keys, f"{wrong} ({origin})"))
        else:
            made.origins[keys] = origin


def _remove(made: Draft, keys: Keys, origin: str) -> None:
    """Take out what says the same in another way, unless it was given in the same place: then it is a mistake, told later."""
    if any(path[: len(keys)] == keys and told == origin for path, told in made.origins.items()):
        return
    table: Any = made.table
    for key in keys[:-1]:
        table = table.get(key) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(keys[-1], None)


def _split(key: str) -> list[str]:
    return [key] if is_code(key) else key.split(".")


def _overlap(one: Keys, other: Keys) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _keys(text: str) -> Keys | None:
    """Split a key as TOML does: `sweep."masks.beta"` has two parts. None if it is no key."""
    try:
        table: Any = tomllib.loads(f"{text} = 0") if "\n" not in text else {}
    except (ValueError, RecursionError):
        return None
    keys: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        ((key, table),) = table.items()
        keys.append(key)
    return tuple(keys) if table == 0 and keys and all(keys) else None


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if list(read) == ["value"] else text
