"""Seeds for every source of randomness, derived from names and not from the order of calls."""

from __future__ import annotations

import hashlib
import operator
from typing import Any

from modhook.errors import UserError


def derive(*labels: str | int) -> int:
    """Return a 63-bit seed for these labels, the same on every machine and in every version.

    `derive(seed, "add", "noise", k)` is the seed of mask sample k in stage *add*: a source of randomness does not move
    when another one is added, and stages can be computed in any order or place. Whole numbers of numpy and torch are numbers like others.

    Raises:
        UserError: a label that is neither a whole number nor a text.
    """
    text = "\x1f".join(_spelled(label) for label in labels)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _spelled(label: Any) -> str:
    if isinstance(label, str):
        return f"str:{str.__str__(label)}"
    try:
        return f"int:{operator.index(label)}"
    except TypeError:
        raise UserError(f"a seed must be a whole number, not {label!r}.") from None
