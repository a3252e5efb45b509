"""Masks beside their controls: scores at equal size, sizes at an equal score."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from modhook.errors import UserError
from modhook.plotting.style import GREY, HATCHES, Shown, colour, styled

NEEDED = ("equal_size", "equal_score", "equal_size_interval", "equal_score_interval", "reached")
"""By which variables the dataset of `modhook.compared` is known."""
_FUNCTIONS = 12
_NETWORKS = 4
_LEARNED = ("shuffled", "untrained", "nonsense")


def controls(data: Any) -> Shown:
    """Return the figure; see `Plot.controls`. Raises `UserError`."""
    if not isinstance(data, xr.Dataset) or any(name not in data.variables for name in NEEDED):
        raise UserError("plot.controls draws what modhook.compared returned, and answer.compared.")
    rows = [("", data)]
    if "network" in data.dims:
        labels = [str(label) for label in data["network"].values[:_NETWORKS]]
        rows = [(label, data.isel(network=i)) for i, label in enumerate(labels)]
    functions = [str(f) for f in data["function"].values]
    shown = functions[:_FUNCTIONS]
    notes = [*_seeds(data), "black lines: the network without a mask"]
    if len(shown) < len(functions):
        notes.append(f"{len(shown)} of {len(functions)} functions")
    if data.sizes.get("network", 0) > _NETWORKS:
        notes.append(f"{_NETWORKS} of {data.sizes['network']} networks")
    learned = [str(k) for k in data["against"].values if str(k) in ("mask", *_LEARNED)]
    with styled(fresh=True):
        wide = min(11.0, 4.5 + 0.75 * len(shown))
        figure = Shown(figsize=(wide, 2.6 * len(rows) + 0.5))
        ratios = [data.sizes["against"], len(learned)] if len(learned) > 1 else None
        grid = figure.subplots(len(rows), 2 if ratios else 1, squeeze=False, width_ratios=ratios)
        for (label, one), panels in zip(rows, grid, strict=True):
            which = f"{label}\n" if label else ""
            part = one.sel(function=shown)
            _scores(panels[0], part, f"{which}Score at equal size")
            if ratios:
                _sizes(panels[1], part.sel(against=learned), f"{which}Size at equal score")
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(6, len(names)))
        figure.supxlabel("; ".join(notes), fontsize=6, color=GREY).set_gid("note")
    return figure


def _scores(axes: Axes, data: xr.Dataset, title: str) -> None:
    scale = 100.0 if data.attrs.get("percent") else 1.0
    values, bounds = scale * data["equal_size"].values, scale * data["equal_size_interval"].values
    axes.set_title(title)
    axes.set_ylabel(f"{data.attrs.get('metric', 'score')}{' [%]' if scale == 100 else ''}")
    _bars(axes, data, values, bounds, low=0.0)
    whole = scale * np.asarray(data["unmasked"].mean("seed").values)  # (F, A)
    for f, a in np.argwhere(np.isfinite(whole)):
        x = _place(int(f), int(a), whole.shape[1])
        half = 0.42 * _width(whole.shape[1])
        axes.hlines(whole[f, a], x - half, x + half, color="black", linewidth=1.2, zorder=4)
    if scale == 100:
        axes.set_ylim(0, 108)


def _sizes(axes: Axes, data: xr.Dataset, title: str) -> None:
    values, bounds = 100 * data["equal_score"].values, 100 * data["equal_score_interval"].values
    known = values[np.isfinite(values) & (values > 0)]
    least = 10 ** np.floor(np.log10(known.min() / 1.5)) if known.size else 0.1
    _bars(axes, data, values, bounds, low=least)
    reached, measured = data["reached"].values, data["measured"].values  # (F, A)
    for f, a in np.ndindex(*reached.shape):
        if reached[f, a] < measured[f, a]:
            x = _place(f, a, reached.shape[1])
            text = f"in {reached[f, a]} of {measured[f, a]} seeds" if reached[f, a] else "no size is enough"
            top = max([least, *(v for v in (*bounds[f, a], *values[:, f, a]) if np.isfinite(v))])
            axes.annotate(
                text, (x, top), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", rotation=90, fontsize=5.5,
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(least, 100 * (100 / least) ** 0.45)  # with room for words above the bars
    axes.set_yticks([t for t in 10.0 ** np.arange(-6, 3) if t >= least])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("weights needed [%]")
    axes.set_title(title)


def _bars(axes: Axes, data: xr.Dataset, values: Any, bounds: Any, low: float) -> None:
    """Draw a bar of the mean per function (a group) and control (a colour), its interval, and a dot per seed."""
    names = [str(k) for k in data["against"].values]
    width, count = _width(len(names)), len(data["function"])
    nothing = not np.isfinite(values).any()
    if nothing:
        axes.text(0.5, 0.5, "none yet", transform=axes.transAxes, ha="center", va="center", fontsize=7, color=GREY)
    for a, name in enumerate(names):
        x = np.array([_place(f, a, len(names)) for f in range(count)])
        mean, lower, upper = (bounds[:, a, i] for i in range(3))  # (F,) each
        number = _COLOURS.get(name, a)
        axes.bar(
            x, np.nan_to_num(mean - low), width * 0.92, bottom=low, label=_NAMES.get(name, name), color=colour(number),
            hatch=HATCHES[number % len(HATCHES)], edgecolor="white", linewidth=0,
        )  # fmt: skip
        spread = np.isfinite(lower) & np.isfinite(upper)
        if spread.any():
            ends = np.stack([mean - lower, upper - mean])[:, spread]
            axes.errorbar(x[spread], mean[spread], yerr=ends, fmt="none", elinewidth=0.8, ecolor="0.15")
        for f in range(count):
            own = values[:, f, a]
            own = own[np.isfinite(own)]
            if len(own) > 1:
                across = x[f] + width * np.linspace(-0.22, 0.22, len(own))
                axes.plot(across, own, linestyle="none", marker="o", markersize=1.8, color="0.15", markeredgewidth=0, zorder=5)
        if low == 0 and not nothing:
            for at in x[np.isnan(mean)]:
                axes.annotate(
                    "none", (at, 0), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", rotation=90, fontsize=5.5,
                )  # fmt: skip
    axes.set_xticks(range(count), [str(f).replace("_", " ") for f in data["function"].values])
    if count > 4:
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlim(-0.5, count - 0.5)


_COLOURS = {name: i for i, name in enumerate(("mask", "random", "magnitude", *_LEARNED))}
_NAMES = {
    "mask": "the function's mask",
    "random": "random mask",
    "magnitude": "largest weights",
    "shuffled": "shuffled network",
    "untrained": "untrained network",
    "nonsense": "nonsense labels",
}


def _width(count: int) -> float:
    return 0.84 / max(1, count)


def _place(function: int, number: int, count: int) -> float:
    return function + (number - (count - 1) / 2) * _width(count)


def _seeds(data: xr.Dataset) -> list[str]:
    counts, total = data["measured"].values, data.sizes["seed"]
    if not counts.any():
        return ["no run has finished yet"]
    most, fewest = int(counts.max()), int(counts[counts > 0].min())
    if most == 1:
        return [f"1 of {total} seeds: no spread"]
    range_ = f"{most}" if most == fewest else f"{fewest} to {most}"
    return [f"mean over {range_} of {total} seeds, bars: its 95 % interval, dots: seeds"]
