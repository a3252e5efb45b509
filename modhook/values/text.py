"""How values and paths of a study file are written in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as TOML does: `("sweep", "masks.beta", 2)` is `sweep."masks.beta"[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            text += f".{key}" if text else key
    return text


def number(value: float) -> str:
    """Write a number without the zeros of an exponent: `3e-5`, not `3e-05`."""
    return re.sub(r"e([+-]?)0*(\d)", r"e\1\2", repr(value)).replace("e+", "e")


def written(value: Any) -> str:
    """Write a value as a TOML file would, cut when it is long. `None` (no TOML value) is `nothing`."""
    text = _written(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


def _written(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else "a number of more than 40 digits"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{dotted((str(k),))} = {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_written(v) for v in value) + "]"
    return str(value)
