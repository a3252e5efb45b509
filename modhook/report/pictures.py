"""The figures of a report: every installed figure that the cube has the variables for, as an image inside the page."""

from __future__ import annotations

import base64
import struct
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import xarray as xr

from modhook.errors import DamageError, ModhookWarning, UserError
from modhook.plotting.settings import ready
from modhook.plugin.code import short
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Figure
from modhook.plugin.manager import Plugins
from modhook.report.drawing import applies, by_rank, draw
from modhook.report.facts import Facts
from modhook.report.hover import hovered
from modhook.report.inline import inline

_PNG_SIZE = slice(16, 24)  # width and height in the header chunk, big-endian


@attrs.frozen
class Picture:
    """One figure: `source` is a data URL (SVG or PNG, whichever is smaller), `width` and `height` give its proportions.

    `markup` is the SVG for a page that shows it inside itself, with what its marks say when they are hovered; None where it had better be
    an image.
    """

    name: str
    caption: str
    source: str = attrs.field(repr=False)
    width: int
    height: int
    markup: str | None = attrs.field(default=None, repr=False)

    @property
    def wide(self) -> bool:
        """Whether it is too wide to be read in half a page's width."""
        return self.width > 1.8 * self.height


@attrs.frozen
class Undrawn:
    """A figure that should apply but whose plugin failed, and why."""

    name: str
    reason: str


@attrs.define
class _Marks:
    """Remembers what the marks of a figure say when they are hovered."""

    titles: dict[str, list[str]] = attrs.field(factory=dict)

    def __call__(self, drawn: Any) -> None:
        self.titles = hovered(drawn)


def pictures(
    cubes: Sequence[xr.DataTree], plugins: Plugins, further: Mapping[str, type[Figure]]
) -> tuple[list[Picture], list[Undrawn]]:
    """Draw every figure that applies to these cubes together, the most important first; one that fails does not keep the others out."""
    try:
        ready()
    except UserError as error:
        return [], [Undrawn("every figure", str(error))]
    drawn: list[Picture] = []
    failed: list[Undrawn] = []
    loaded, summaries = [], {e.spec.name: e.spec.summary for e in plugins.entries("figures")}
    for entry in plugins.entries("figures"):
        try:
            loaded.append((entry.spec.name, entry.load()()))
        except Exception as error:  # a plugin of anybody's
            failed.append(Undrawn(entry.spec.name, _reason(error)))
    for name, cls in further.items():
        try:
            loaded.append((short(name), cls()))
            summaries[short(name)] = (cls.__doc__ or name).strip().partition("\n")[0]
        except Exception as error:
            failed.append(Undrawn(name, _reason(error)))
    with tempfile.TemporaryDirectory() as folder:
        for name, figure in by_rank(loaded):
            try:
                if not applies(figure, cubes):
                    continue
                drawn.append(_drawn(name, summaries[name], figure, cubes, Path(folder)))
            except DamageError:
                raise  # a report of a cube that has lost something is none
            except Exception as error:  # a plugin of anybody's, on a cube that may be half finished
                failed.append(Undrawn(name, _reason(error)))
    asked = {*further, *map(short, further)}
    for one in failed:
        if one.name in asked:
            warnings.warn(ModhookWarning(f"the figure {one.name!r} could not be drawn: {one.reason}"), stacklevel=2)
    return drawn, failed


def trend(facts: Facts) -> tuple[list[Picture], list[Undrawn]]:
    """Draw what a sweep does to scores and masks: one figure, none without a sweep; one that fails does not keep the report out."""
    try:
        ready()
    except UserError:  # said of every figure
        return [], []
    from modhook.report.trend import CAPTION, NAME, Trend

    figure = Trend(facts)
    if figure.lacks([facts.cube]):
        return [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            return [_drawn(NAME, CAPTION, figure, [facts.cube], Path(folder))], []
    except DamageError:
        raise
    except Exception as error:  # of a stranger's cube, or of matplotlib
        return [], [Undrawn(NAME, _reason(error))]


def _drawn(name: str, caption: str, figure: Figure, cubes: Sequence[xr.DataTree], folder: Path) -> Picture:
    marks = _Marks()
    svg, png = draw(figure, cubes, folder, name, ("svg", "png"), marks)
    return _picture(name, caption, svg.read_bytes(), png.read_bytes(), marks.titles)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else told(error)


def _picture(name: str, caption: str, svg: bytes, png: bytes, titles: Mapping[str, Sequence[str]]) -> Picture:
    width, height = struct.unpack(">II", png[_PNG_SIZE])
    # As an image, an SVG runs no script and loads nothing, whatever stands in it.
    kind, data = ("svg+xml", svg) if len(svg) <= len(png) else ("png", png)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(name, caption, source, width, height, inline(svg.decode("utf-8"), caption, titles))
