"""The declaration of one variable of a cube; whoever writes a variable declares it once, here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "str")


def _known(_: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in DTYPES:
        raise ValueError(f"{attribute.name} must be one of {', '.join(DTYPES)}, not {value!r}")


def _path(_: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    parts = value.split("/")
    if len(parts) < 2 or not all(parts):
        raise ValueError(f"{attribute.name} must be 'group/variable', not {value!r}")


def _table(_: Any, attribute: attrs.Attribute[Any], value: Mapping[str, Any]) -> None:
    if value.get("table", "number") not in ("percent", "number"):
        raise ValueError(f"{attribute.name}['table'] must be 'percent' or 'number', not {value['table']!r}")


@attrs.frozen
class Variable:
    """One variable of the cube: name, dimensions, type and meaning.

    `name` is a path, `"scores/accuracy"`. `dims` are the variable's own dimensions; the run's dimensions (`seed` and the
    sweep keys) are put before them unless `per_run` is False. A leading own dimension `stage` is written one stage at a
    time. Floats that were never written read NaN; integers and bytes read 0 and are valid only where `runs/status` says
    done. A variable that is the same for all runs may carry its `value`, which is written when the cube is laid out.
    """

    name: str = attrs.field(validator=_path)
    dims: tuple[str, ...]
    dtype: str = attrs.field(validator=_known)
    doc: str
    units: str = "1"
    per_run: bool = True
    value: tuple[Any, ...] | None = None
    attrs: Mapping[str, Any] = attrs.field(factory=dict, validator=_table)

    @property
    def group(self) -> str:
        """The group part of the name."""
        return self.name.rpartition("/")[0]

    @property
    def short(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]
