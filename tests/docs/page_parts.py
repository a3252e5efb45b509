"""What pages are made of by the programs that renew them: tables in Markdown, and numbers as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; a stroke within a cell, which would end it, is a slash."""
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, ["---"] * len(head), *lines))


def plain(value: Any, digits: int) -> Any:
    """Return numbers rounded to so many digits, NaN and infinity as None, so that they can be written as JSON."""
    if isinstance(value, dict):
        return {k: plain(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
