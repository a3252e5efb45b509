"""What modhook's figures share: style, means over seeds, panels, bars, lines, gaps and the note under a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import style
from modhook_plugins.figures.networks import Network
from modhook_plugins.figures.scales import group_ticks, panel_points

COLUMN, PAGE = 3.5, 7.0
"""Widths of one and of two columns, in inches."""
SMALL = 5.5
GREY, HATCHES, MARKERS, DASHES = style.GREY, style.HATCHES, style.MARKERS, style.DASHES
colour, styled = style.colour, style.styled


# -- numbers


@attrs.frozen
class Spread:
    """Mean and standard deviation (n - 1) over the seeds that have a value."""

    mean: float
    deviation: float
    count: int


def spread(values: xr.DataArray) -> Spread:
    """Summarise one number per seed (or per seed and pooled sweep point); those without it (NaN) are left out."""
    data = np.asarray(values.values, dtype=float).ravel()
    data = data[np.isfinite(data)]
    mean = float(data.mean()) if len(data) else np.nan
    return Spread(mean, float(data.std(ddof=1)) if len(data) > 1 else np.nan, len(data))


def spreads(values: xr.DataArray, dim: str) -> tuple[Spread, ...]:
    """Summarise over everything but `dim`: one spread per label of it."""
    return tuple(spread(values.isel({dim: i})) for i in range(values.sizes[dim]))


@attrs.frozen
class Series:
    """What is drawn in one colour: one spread per group or per point of the axis."""

    label: str
    values: tuple[Spread, ...]

    @property
    def means(self) -> np.ndarray[Any, Any]:
        """The means (n,), NaN where there is none."""
        return np.array([s.mean for s in self.values], dtype=float)

    @property
    def deviations(self) -> np.ndarray[Any, Any]:
        """The standard deviations (n,), 0 where there is none."""
        return np.array([s.deviation if s.count > 1 else 0.0 for s in self.values], dtype=float)


# -- the frame


def panels(
    labels: Sequence[str], title: str, height: float = 2.3, columns: int = 2, wide: bool = False
) -> tuple[MatplotlibFigure, list[Axes]]:
    """Return a figure with one titled panel per label: one column wide for one panel, two for several."""
    many = len(labels) > 1
    columns = columns if many else 1
    rows = -(-len(labels) // columns)
    width = PAGE if wide or (many and columns > 1) else COLUMN
    figure = MatplotlibFigure(figsize=(width, height * rows + 0.3))
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[len(labels) :]:
        unused.set_axis_off()
    for one, label in zip(axes, labels, strict=False):
        one.set_title(label if many else f"{title}\n{label}" if label else title)
    if many:
        figure.suptitle(title, fontsize=mpl.rcParams["axes.titlesize"] + 1)
    return figure, axes[: len(labels)]


def say_seeds(figure: MatplotlibFigure, shown: Iterable[Spread], total: int, *notes: str, bars: str = "bars") -> None:
    """Write under the figure how many seeds it shows, and further notes."""
    counts = [s.count for s in shown if s.count]
    most, fewest = max(counts, default=0), min(counts, default=0)
    range_ = f"{most}" if fewest == most else f"{fewest} to {most}"
    text = (
        f"mean of {range_} of {total} seeds, {bars}: standard deviation"
        if most > 1
        else f"{most} of {total} seeds: no spread"
        if most
        else "no run has finished yet"
    )
    write_note(figure, "; ".join([text, *filter(None, notes)]))


def write_note(figure: MatplotlibFigure, text: str) -> None:
    """Write a line under everything else; files are cut to what is drawn, so that it may lie below the figure's edge."""
    below = 0.06  # inches
    for legend in figure.legends:
        labels = [t.get_text() for t in legend.get_texts()]
        below += 0.1 + 0.165 * -(-len(labels) // _columns(figure, labels))
    figure.text(0.5, -below / figure.get_figheight(), text, ha="center", va="top", fontsize=6, color=GREY, gid="note")


def seeds(shown: Sequence[Network]) -> int:
    """Return the largest number of seeds of the networks."""
    return max((n.seeds for n in shown), default=0)


def legend_below(axes: Axes, columns: int = 3, offset: float = -0.2) -> None:
    """Put the legend under the panel."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, offset), ncols=columns, columnspacing=1, handlelength=1.6, borderpad=0
    )


def shared_legend(figure: MatplotlibFigure, *panels: Axes) -> None:
    """Put one legend for all panels under them; of equal labels the first counts."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    legend_under(figure, list(found.values()), list(found))


def legend_under(figure: MatplotlibFigure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend below the figure's edge, where the note is too, with as many columns as fit."""
    if labels:
        columns = _columns(figure, labels)
        # matplotlib fills column by column; people read row by row.
        order = [i for column in range(columns) for i in range(column, len(labels), columns)]
        figure.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=figure.transFigure,
            ncols=columns,
            columnspacing=1.2,
            handlelength=1.6,
            borderaxespad=0.3,
        )


def _columns(figure: MatplotlibFigure, labels: Sequence[str]) -> int:
    fit = max(1, int(72 * figure.get_figwidth() / (4.2 * max(map(len, labels)) + 30)))
    return -(-len(labels) // -(-len(labels) // fit))  # as few as the rows need, so that these are equally long


def gap(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=7, color=GREY, wrap=True)


# -- what is drawn


def grouped_bars(
    axes: Axes,
    groups: Sequence[str],
    series: Sequence[Series],
    ylabel: str = "accuracy [%]",
    scale: float = 100,
    number: Callable[[float], str] | None = None,
    top: float | None = 100,
    chance: Sequence[Series] = (),
) -> None:
    """Draw bars of means, one group per label, one colour and hatch per series, with bars of deviation where there are seeds for it.

    `scale` multiplies what is drawn: shares are shown in percent. `number` writes a mean beside its bar where there is room.
    `chance` holds, per series, means that are drawn as a black mark; numbers then have the colour of their bars. A value that is
    missing leaves its place empty, with the word "none"; once where the places of several are too narrow for it.
    """
    number = number or (lambda mean: f"{mean:.0f}")
    width = 0.82 / max(1, len(series))
    group_ticks(axes, groups)
    room = panel_points(axes) * width / max(1, len(groups))  # points per bar
    highest = 0.0
    said = np.zeros(len(groups), dtype=bool)  # "none", by the series before
    for i, one in enumerate(series):
        x = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        means, errors = scale * one.means, scale * one.deviations
        axes.bar(
            x,
            np.nan_to_num(means),
            width * 0.92,
            label=one.label,
            yerr=errors if errors.any() else None,
            hatch=HATCHES[i % len(HATCHES)],
            color=colour(i),
            edgecolor="white",
            linewidth=0,
            error_kw={"elinewidth": 0.8, "ecolor": "0.15"},
        )
        highest = max([highest, *(means + errors)[np.isfinite(means)]])
        above = scale * chance[i].means if i < len(chance) else np.full(len(groups), np.nan)
        missing = np.isnan(means)
        for at in x[missing & ~(said & (room < 6))]:
            _write_at(axes, at, 0, "none", 90, GREY)
        for at, mean, error, mark in zip(x, means, errors, above, strict=True):
            if room >= 6 and not np.isnan(mean):
                written = number(mean).replace("-", "\N{MINUS SIGN}")
                end = mean - error if mean < 0 else np.fmax(mean + error, mark)
                # A black number above a black mark would be read as the mark's.
                ink = "black" if np.isnan(mark) else _dark(colour(i))
                _write_at(axes, at, end, written, 0 if room >= 3.3 * len(written) else 90, ink, below=mean < 0)
        said = missing
    for i, one in enumerate(chance):
        x = np.arange(len(groups)) + (i - (len(chance) - 1) / 2) * width
        half = 0.42 * width
        axes.hlines(
            scale * one.means, x - half, x + half, color="black", linewidth=1.4, zorder=3, label="_" if i else "chance"
        )
        highest = max([highest, *(scale * one.means)[np.isfinite(one.means)]])
    if top is not None:
        axes.set_ylim(0, max(1.13 * top, 1.1 * highest))
        axes.set_yticks(np.linspace(0, top, 6))
    else:
        axes.set_ylim(0, 1.15 * highest if highest else 1)
    axes.set_ylabel(ylabel)


def _dark(ink: str) -> tuple[float, float, float]:
    """Return a colour dark enough to be read as small text on white."""
    red, green, blue = to_rgb(ink)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def _write_at(axes: Axes, x: float, y: float, written: str, rotation: int, ink: Any, below: bool = False) -> None:
    axes.annotate(
        written, (x, y), xytext=(0, -1.5 if below else 1.5), textcoords="offset points", ha="center",
        va="top" if below else "bottom", fontsize=SMALL, rotation=rotation, color=ink,
    )  # fmt: skip


def lines(
    axes: Axes,
    x: Sequence[float],
    series: Sequence[Series],
    scale: float = 1,
    first: int = 0,
    join: bool = True,
    apart: float = 0,
    under: int = 0,
) -> None:
    """Draw means over `x` with bars of deviation, one colour, marker and dash per series; series without values among others are named.

    `first` is the number of the first colour; without `join` only the markers are drawn. `apart` is the distance along `x` of one
    series to the next, so that their bars do not hide each other; where it is 0 they differ in width. `under` counts the series that
    are drawn over these later.
    """
    empty = []
    for i, one in enumerate(series, first):
        if np.isnan(one.means).all():
            empty.append(one.label)
            continue
        errors = scale * one.deviations
        axes.errorbar(
            np.asarray(x, dtype=float) + apart * (i - first - (len(series) - 1) / 2),
            scale * one.means,
            yerr=np.where(np.isnan(one.means), 0, errors) if errors.any() else None,
            label=one.label,
            color=colour(i),
            marker=MARKERS[i % len(MARKERS)],
            markersize=3.2,
            linestyle=DASHES[i % len(DASHES)] if join else "none",
            # At one place, the first bars are the widest, so that those above do not hide them.
            elinewidth=0.8 if apart else 0.8 + 0.9 * (first + len(series) - 1 - i + under),
        )
    if 0 < len(empty) < len(series):
        axes.text(
            0.02, 0.02, f"none yet: {', '.join(empty)}", transform=axes.transAxes, fontsize=SMALL, color=GREY
        )  # fmt: skip


def label_ends(axes: Axes, x: Sequence[float], series: Sequence[Series], scale: float = 1, first: int = 0) -> None:
    """Write each line's label right of its last value, pushed apart where they would touch; the axes' limits must be final."""
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    place: Callable[[Any], Any] = np.log if log else lambda v: v
    ends = []
    for i, one in enumerate(series, first):
        known = np.flatnonzero(np.isfinite(one.means))
        if len(known):
            ends.append((place(scale * one.means[known[-1]]), float(x[known[-1]]), i, one.label))
    spec = axes.get_subplotspec()
    rows = spec.get_geometry()[0] if spec else 1
    points = 72 * 0.72 * axes.figure.get_figheight() / rows  # type: ignore[union-attr]
    least = 7.5 * (place(high) - place(low)) / points
    above = -np.inf
    for y, at, i, label in sorted(ends):
        above = max(y, above + least)
        axes.annotate(
            label, (at, np.exp(above) if log else above), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=6.5, color=colour(i), annotation_clip=False,
        )  # fmt: skip


def heat(
    axes: Axes, shares: np.ndarray[Any, Any], rows: Sequence[str], columns: Sequence[str], limit: float, diverging: bool
) -> Any:
    """Draw a matrix (rows, columns) in percent; return the image. NaN stays grey."""
    image = axes.imshow(
        100 * shares,
        cmap=mpl.colormaps["PuOr_r" if diverging else "Blues"].with_extremes(bad="0.85"),
        vmin=-100 * limit if diverging else 0,
        vmax=100 * limit,
        aspect="equal",
    )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    return image
