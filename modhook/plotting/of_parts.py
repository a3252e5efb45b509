"""Several functions' masks: their parts, their overlaps, and which of them are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr

from modhook.errors import UserError
from modhook.masks import parts as of_parts
from modhook.masks.overlap import overlaps as of_overlaps
from modhook.plotting.style import Shown, below, colour, styled
from modhook.values.arguments import checked
from modhook.values.bounds import Count

Numbers = npt.NDArray[np.float64]


def parts(given: Any, shared: bool, most: int) -> Shown:
    """Return the figure; see `Plot.parts`. Raises `UserError`."""
    most = checked("most", most, Count)
    data = _dataset(given, of_parts.parts, ("exclusive", "shared", "member"), "modhook.parts")
    name = "shared" if shared else "exclusive"
    given_dims = tuple(data.dims)
    spread, seeds = None, data.sizes.get("seed", 1)
    if "seed" in data.dims:
        spread = data[name].std("seed", ddof=1).values if seeds > 1 else None  # (S,)
        data = data.isel(seed=0, drop=True)[["member", "degree"]].merge(data.drop_vars(["member", "degree"]).mean("seed"))
    values, chance = data[name].values, data[f"{name}_chance"].values  # (S,)
    order = np.argsort(-values, kind="stable")[:most]
    order = order[np.lexsort((-values[order], data["degree"].values[order]))]
    functions = [str(f) for f in data["function"].values]
    member = data["member"].values[order]  # (shown, F)
    with styled(fresh=True):
        wide = max(1.6, min(9.0, 0.26 * len(order)))  # inches for the bars
        figure = Shown(figsize=(2.4 + wide, 2.2 + 0.2 * len(functions)))
        ratios = {"height_ratios": [1.7, max(0.3, 0.2 * len(functions))], "width_ratios": [1, wide]}
        grid = figure.subplots(2, 2, sharey="row", gridspec_kw=ratios)
        (corner, bars), (sizes, dots) = grid
        corner.set_axis_off()
        _bars(bars, values[order], None if spread is None else spread[order], chance[order])
        corner.legend(*bars.get_legend_handles_labels(), loc="center left", borderpad=0)
        figure.suptitle(
            f"Weights kept by {'all of these functions' if shared else 'exactly these functions'}", fontsize=8
        )
        _members(dots, member)
        _sizes(sizes, functions, data["kept"].values)
        left = (
            f"; the {len(order)} largest of {data.sizes['subset']} subsets" if len(order) < data.sizes["subset"] else ""
        )
        over = f"\nmean over {seeds} seed{'s, bars: standard deviation' if seeds > 1 else ''}" if "seed" in given_dims else ""
        below(figure, f"chance: random masks with as many weights of each tensor{left}{over}")
    return figure


def _bars(bars: Any, values: Numbers, spread: Numbers | None, chance: Numbers) -> None:
    """Draw what each subset keeps, with its spread over seeds, and what it would by chance: (shown,) each."""
    places = np.arange(len(values))
    bars.bar(places, values, 0.7, color=colour(0), label="measured")
    if spread is not None:
        bars.errorbar(places, values, yerr=[np.minimum(spread, values), spread], fmt="none", elinewidth=0.8, ecolor="0.15")
    bars.hlines(chance, places - 0.4, places + 0.4, color="black", linewidth=1.4, label="chance", zorder=3)
    tops = values if spread is None else values + spread
    for at, value, top, mark in zip(places, values, tops, chance, strict=True):
        bars.annotate(
            f"{value:,.0f}", (at, max(top, mark)), xytext=(0, 1.5), textcoords="offset points", ha="center", va="bottom",
            fontsize=5, rotation=90 if len(values) > 8 else 0,
        )  # fmt: skip
    bars.set_xticks([])
    bars.tick_params(labelleft=True)
    bars.set_ylim(0, 1.25 * max(1.0, float(tops.max(initial=0)), float(chance.max(initial=0))))
    bars.set_xlim(-0.6, len(values) - 0.4)


def _members(dots: Any, member: npt.NDArray[np.bool_]) -> None:
    """Draw which functions each subset is of: (shown, F)."""
    shown, functions = member.shape
    for i in range(0, functions, 2):
        dots.axhspan(i - 0.5, i + 0.5, color="0.95", zorder=0)
    for at, row in enumerate(member):
        inside = np.flatnonzero(row)
        dots.scatter(np.full(functions, at), range(functions), s=12, color="0.85", zorder=2)
        dots.plot([at, at], [inside.min(), inside.max()], color="0.2", linewidth=1.2, zorder=2)
        dots.scatter(np.full(len(inside), at), inside, s=14, color="0.2", zorder=3)
    dots.set_xlim(-0.6, shown - 0.4)
    dots.set_ylim(functions - 0.5, -0.5)
    dots.set_axis_off()


def _sizes(sizes: Any, functions: Sequence[str], kept: Numbers) -> None:
    """Draw how many weights each function keeps: (F,)."""
    sizes.barh(range(len(functions)), kept, 0.6, color="0.5")
    sizes.invert_xaxis()
    sizes.set_yticks(range(len(functions)), functions)
    sizes.yaxis.tick_right()
    sizes.tick_params(axis="y", length=0)
    sizes.tick_params(axis="x", labelsize=5)
    sizes.locator_params(axis="x", nbins=3)
    sizes.spines[["left", "top"]].set_visible(False)
    sizes.grid(visible=False, axis="y")
    sizes.set_xlabel("kept", fontsize=6)


def overlaps(given: Any) -> Shown:
    """Return the figure; see `Plot.overlaps`. Raises `UserError`."""
    data = _dataset(given, of_overlaps, ("iou", "iou_chance", "intersection"), "modhook.overlaps")
    functions = [str(f) for f in data["function"].values]
    values, chance = data["iou"].values, data["iou_chance"].values  # (F, F)
    with styled(fresh=True):
        side = min(12.0, 1.6 + 0.55 * len(functions))
        figure = Shown(figsize=(side + 0.6, side))
        axes = figure.subplots()
        image = axes.imshow(values, cmap=mpl.colormaps["Blues"].with_extremes(bad="0.85"), vmin=0, vmax=1)
        size = 7 if len(functions) <= 8 else 5
        for (i, j), value in np.ndenumerate(values) if len(functions) <= 20 else ():
            ink = "white" if np.isfinite(value) and value > 0.6 else "black"
            text = f"{value:.2f}" if np.isfinite(value) else "-"
            if np.isfinite(chance[i, j]):
                text += f"\n({chance[i, j]:.2f})"
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=ink)
        axes.set_xticks(range(len(functions)), functions, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(functions)), functions)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_title("Overlap of the masks (IoU)")
        figure.colorbar(image, ax=axes, shrink=0.8)
        below(figure, "in brackets: chance, for masks with as many weights of each tensor")
    return figure


def dendrogram(given: Any) -> Shown:
    """Return the figure; see `Plot.dendrogram`. Raises `UserError`."""
    try:
        from scipy.cluster import hierarchy
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise UserError(
            f'a dendrogram needs scipy, which cannot be imported ({error}); install it with `python -m pip install "modhook[dendrogram]"`.'
        ) from error
    data = _dataset(given, of_overlaps, ("iou", "iou_chance", "intersection"), "modhook.overlaps")
    functions = [str(f) for f in data["function"].values]
    if len(functions) < 2:
        raise UserError("a dendrogram needs the masks of at least two functions.")
    distance = 1 - data["iou"].values  # (F, F)
    np.fill_diagonal(distance, 0)
    if not np.isfinite(distance).all():
        i, j = np.argwhere(~np.isfinite(distance))[0]
        raise UserError(
            f"the masks of {functions[i]!r} and {functions[j]!r} both keep nothing, so that they have no overlap."
        )
    tree = hierarchy.dendrogram(
        hierarchy.linkage(squareform(distance, checks=False), "average"), labels=functions, no_plot=True
    )
    chance = data["iou_chance"].values[np.triu_indices(len(functions), 1)]
    with styled(fresh=True):
        figure = Shown(figsize=(4, min(12, 1 + 0.22 * len(functions))))
        axes = figure.subplots()
        for high, places in zip(tree["dcoord"], tree["icoord"], strict=True):
            axes.plot(high, places, color=colour(0))
        if np.isfinite(chance).any():
            axes.axvline(
                1 - float(np.nanmean(chance)),
                color="black",
                linestyle=":",
                linewidth=1,
                label="mean of all pairs, by chance",
            )
            below(figure, "", 1)
        axes.set_yticks(5 + 10 * np.arange(len(functions)), tree["ivl"])
        axes.set_ylim(0, 10 * len(functions))
        axes.set_xlim(max(0.05, 1.05 * float(max(map(max, tree["dcoord"])))), 0)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("1 \N{MINUS SIGN} IoU, average linkage")
        axes.set_title("Which masks are alike")
    return figure


def _dataset(given: Any, make: Any, names: tuple[str, ...], what: str) -> xr.Dataset:
    """Return a dataset as it is, or made from {function: masks}; raises `UserError` for another one."""
    data = given if isinstance(given, xr.Dataset) else make(given)
    if missing := [n for n in names if n not in data.variables]:
        raise UserError(f"this dataset has no {missing[0]}; give what {what} returned, or {{function: masks}}.")
    return data
