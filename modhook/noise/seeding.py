"""Seeds for every source of randomness, derived from names and not from the order of calls."""

from __future__ import annotations

import hashlib


def derive(*labels: str | int) -> int:
    """Return a 63-bit seed for these labels, the same on every machine and in every version.

    `derive(seed, "add", "noise", k)` is the seed of mask sample k in stage *add*: a source of randomness does not move
    when another one is added, and stages can be computed in any order or place.
    """
    text = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
