"""What modhook's figures share: style, means over seeds, grouped bars."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure


def styled() -> Any:
    """Return a context in which modhook's style is used."""
    style = mpl.rc_params_from_file(
        str(files("modhook_plugins.figures") / "modhook.mplstyle"), use_default_template=False
    )
    return mpl.rc_context(style)


@attrs.frozen
class Spread:
    """Mean and standard deviation (n - 1) over the seeds that have a value."""

    mean: float
    deviation: float
    count: int


def spread(values: xr.DataArray) -> Spread:
    """Summarise one number per seed; seeds without it (NaN) are left out."""
    data = np.asarray(values.values, dtype=float).ravel()
    data = data[np.isfinite(data)]
    mean = float(data.mean()) if len(data) else np.nan
    return Spread(mean, float(data.std(ddof=1)) if len(data) > 1 else np.nan, len(data))


@attrs.frozen
class Series:
    """Bars of one colour, one per group."""

    label: str
    values: tuple[Spread, ...]


def grouped_bars(axes: Axes, groups: Sequence[str], series: Sequence[Series], ylabel: str = "accuracy [%]") -> None:
    """Draw bars of shares in percent: one group per label, one colour per series, bars of deviation where there are seeds for it.

    A value that is missing leaves its place empty, with the word "none".
    """
    width = 0.82 / len(series)
    for i, one in enumerate(series):
        x = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        means = np.array([100 * s.mean for s in one.values])
        errors = np.array([100 * s.deviation if s.count > 1 else 0.0 for s in one.values])
        bars = axes.bar(
            x,
            np.nan_to_num(means),
            width * 0.92,
            label=one.label,
            yerr=errors if errors.any() else None,
            error_kw={"elinewidth": 0.8},
        )
        for bar, mean in zip(bars, means, strict=True):
            if np.isnan(mean):
                axes.annotate(
                    "none",
                    (bar.get_x() + bar.get_width() / 2, 1),
                    ha="center",
                    va="bottom",
                    fontsize=5.5,
                    rotation=90,
                    color="0.4",
                )
            else:
                axes.annotate(
                    f"{mean:.0f}",
                    (bar.get_x() + bar.get_width() / 2, mean),
                    xytext=(0, 1.5),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=5.5,
                )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(ylabel)
    axes.tick_params(axis="x", length=0)


def say_seeds(figure: MatplotlibFigure, series: Sequence[Series], total: int) -> None:
    """Write under the figure how many seeds it shows."""
    counts = [s.count for one in series for s in one.values]
    most = max(counts, default=0)
    text = (
        f"mean of {most} of {total} seeds, bars: standard deviation"
        if most > 1
        else f"{most} of {total} seeds: no spread"
        if most
        else "no run has finished yet"
    )
    figure.supxlabel(text, fontsize=6, color="0.35")


def study_name(cube: xr.DataTree) -> str:
    """Return the name of a cube's study."""
    return str(cube.attrs.get("study", {}).get("study", {}).get("name", ""))


def sweep_points(array: xr.DataArray) -> list[dict[str, Any]]:
    """Return every combination of the sweep coordinates, or one empty point."""
    keys = [str(d) for d in array.dims if "." in str(d)]
    points: list[dict[str, Any]] = [{}]
    for key in keys:
        points = [p | {key: v} for p in points for v in array[key].values]
    return points
