"""What the marks of a figure say when they are hovered: bars and points, by the names and numbers that matplotlib has of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 400
"""A line of more points says nothing: they are no marks that one could point at."""


def hovered(figure: Figure) -> dict[str, list[str]]:
    """Name the bars and marked lines of a figure that was drawn, and return {name: what its marks say}."""
    titles: dict[str, list[str]] = {}
    for axes in figure.axes:
        labels = _ticks(axes)
        bars: list[Any] = list(axes.containers)
        for container in bars:
            if not hasattr(container, "datavalues"):
                continue  # error bars
            series = _series(container)
            for patch, value in zip(container.patches, container.datavalues, strict=True):
                upright = container.orientation == "vertical"
                middle = patch.get_x() + patch.get_width() / 2 if upright else patch.get_y() + patch.get_height() / 2
                place = _near(labels[0 if upright else 1], middle)
                titles[_named(patch, titles)] = [_said(series, place, _number(value))]
        for line in axes.lines:
            x, y = (np.asarray(v) for v in line.get_data(orig=False))
            if line.get_marker() in ("None", "none", None, "", " ") or not 0 < len(x) <= _MOST:
                continue
            finite = np.isfinite(x) & np.isfinite(y)
            titles[_named(line, titles)] = [
                _said(_series(line), _near(labels[0], a) or _number(a), _number(b)) for a, b in zip(x[finite], y[finite], strict=True)
            ]
    return titles


def _named(artist: Any, titles: dict[str, list[str]]) -> str:
    name = f"hover{len(titles)}"
    artist.set_gid(name)
    return name


def _series(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _ticks(axes: Axes) -> list[dict[float, str]]:
    """Return the labels along x and y that are words, by their places; numbers say themselves."""
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        fixed = type(axis.get_major_locator()).__name__ == "FixedLocator"
        texts = [t.get_text() for t in axis.get_ticklabels()] if fixed else []
        found.append(dict(zip(map(float, axis.get_ticklocs()), texts, strict=False)) if texts else {})
    return found


def _near(labels: dict[float, str], at: float) -> str:
    """Return the label next to a place, no farther than half the way to the one after it."""
    if not labels:
        return ""
    place = min(labels, key=lambda p: abs(p - at))
    apart = min((abs(p - place) for p in labels if p != place), default=1.0)
    return " ".join(labels[place].split()) if abs(place - at) <= apart / 2 else ""


def _said(series: str, place: str, value: str) -> str:
    return f"{', '.join(filter(None, (place, series)))}: {value}" if place or series else value


def _number(value: Any) -> str:
    return f"{float(value):.4g}"
