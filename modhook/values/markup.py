"""Small pieces of HTML for notebooks: plain tags with styles of their own, readable on a light and on a dark page.

Nothing is loaded and no script runs. Texts are escaped, and of control characters shown; what is `Markup` is HTML already.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from modhook.errors import printable

_LINE = "1px solid rgba(128,128,128,0.35)"
_INK = "rgb(64,132,204)"  # seen on white and on black
_CELL = f"text-align:left;padding:1px 12px 1px 0;border:0;border-bottom:{_LINE};vertical-align:middle;color:inherit"
_BOX = "font:13px/1.45 system-ui,sans-serif;color:inherit;background:transparent;max-width:60em;overflow-x:auto"
_WIDTH, _HEIGHT = 260, 72
_POINTS = 200
"""Of a longer curve so many points are drawn, the first and the last among them."""


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> str:
    """Return a text as HTML on one line; `Markup` stays as it is."""
    return value if isinstance(value, Markup) else html.escape(printable(str(value), line=True))


def share(value: float) -> str:
    """Write a share in percent: 4.2 %; `-` for NaN."""
    if math.isnan(value):
        return "-"
    percent = 100 * value
    return f"{percent:.1f} %" if percent >= 1 or percent == 0 else f"{percent:.2g} %"


def box(*pieces: str) -> str:
    """Return pieces of HTML as one block."""
    return f'<div style="{_BOX}">{"".join(pieces)}</div>'


def line(head: str, *facts: str) -> Markup:
    """Return one line: a name in bold, then facts."""
    return Markup(f"<div><b>{escaped(head)}</b> {' · '.join(escaped(f) for f in facts if f)}</div>")


def bar(value: float) -> Markup:
    """Return a share from 0 to 1 as a bar with its number; NaN is a dash."""
    if math.isnan(value):
        return Markup("-")
    filled = 100 * min(1.0, max(0.0, value))
    return Markup(
        f'<span style="display:inline-block;width:110px;height:9px;border:{_LINE};margin-right:7px">'
        f'<span style="display:block;height:100%;width:{filled:.2f}%;background:{_INK}"></span></span>{share(value)}'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> Markup:
    """Return a table, and a note under it where there is one."""
    top = "".join(f'<th style="{_CELL};font-weight:600">{escaped(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escaped(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    under = f'<div style="opacity:0.7">{escaped(note)}</div>' if note else ""
    return Markup(
        f'<table style="border-collapse:collapse;margin:4px 0;background:transparent"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table>{under}"
    )


def curve(title: str, values: Sequence[float]) -> Markup:
    """Return a small curve of numbers as inline SVG, with its first, lowest, highest and last value; gaps where they are not finite."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return Markup("")
    step = max(1, math.ceil(len(values) / _POINTS))
    places = sorted({*range(0, len(values), step), len(values) - 1})
    low, high = min(known), max(known)
    pieces: list[list[str]] = [[]]
    for place in places:
        if not math.isfinite(values[place]):
            pieces.append([])
            continue
        x = 2 + (_WIDTH - 4) * (place / (len(values) - 1) if len(values) > 1 else 0.5)
        y = 2 + (_HEIGHT - 4) * ((high - values[place]) / (high - low) if high > low else 0.5)
        pieces[-1].append(f"{x:.1f},{y:.1f}")
    drawn = "".join(
        f'<polyline points="{" ".join(p)}" fill="none" stroke="{_INK}" stroke-width="1.5"/>'
        if len(p) > 1
        else f'<circle cx="{p[0].partition(",")[0]}" cy="{p[0].partition(",")[2]}" r="2" fill="{_INK}"/>'
        for p in pieces
        if p
    )
    said = f"{title}: {_number(known[0])} to {_number(known[-1])}"
    limits = f" (lowest {_number(low)}, highest {_number(high)})" if len(known) > 1 else ""
    return Markup(
        f'<div style="display:inline-block;margin:4px 16px 4px 0"><div>{escaped(said)}'
        f'<span style="opacity:0.7">{escaped(limits)}</span></div>'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(said)}">'
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.3"/>{drawn}</svg></div>'
    )


def _number(value: float) -> str:
    return f"{value:.4g}"
