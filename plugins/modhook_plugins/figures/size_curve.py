"""Score against size: what cuts through the ranking of each stage's logits score, and what is left without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    DASHES,
    GREY,
    MARKERS,
    SMALL,
    Spread,
    colour,
    gap,
    panels,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    styled,
)
from modhook_plugins.figures.networks import Network, labels_of, networks
from modhook_plugins.figures.scales import one_scale

_STAGES, _NETWORKS = 9, 4


class SizeCurve(Figure):
    """Score of cuts of many sizes, and without them, for each stage on its own split. Cubes: any with the analysis `size_curve`; one
    panel per stage, one colour per network.
    """

    rank = 35
    requires = ("size_curve/score", "size_curve/complement", "size_curve/density", "size_curve/threshold")

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per stage; the band around a line is the standard deviation over seeds."""
        found, note = networks(cubes, limit=_NETWORKS)
        stages = list(dict.fromkeys(s for n in found for s in labels_of(n.cube, "size_curve", "stage")))
        some = f"{_STAGES} of {len(stages)} stages" if len(stages) > _STAGES else ""
        stages = stages[:_STAGES]
        alone = len(found) == 1
        shown: list[Spread] = []
        with styled():
            title = f"Score against size: {found[0].label}" if alone else "Score against size"
            figure, every = panels([s.replace("_", " ") for s in stages], title, 2.3, min(3 if alone else 2, len(stages)))
            for axes, stage in zip(every, stages, strict=True):
                drawn: list[Spread] = []
                for i, network in enumerate(found):
                    if stage in labels_of(network.cube, "size_curve", "stage"):
                        drawn.append(_draw(axes, network, stage, i, alone))
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.set_xlabel("weights kept [%]")
                if not any(s.count for s in drawn):
                    gap(axes, "no curve (yet)")
                shown += drawn
            one_scale(every)
            for axes in every:
                low, high = axes.get_ylim()
                axes.set_ylim(min(0, low), high if high > 0 else 1)
            every[0].set_ylabel(_metric(found[0]) + (" [%]" if _scale(found[0]) == 100 else ""))
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note, some, bars="band")
        return figure


def _draw(axes: Axes, network: Network, stage: str, i: int, alone: bool) -> Spread:
    """Draw cut, complement, threshold and unmasked score of one network at one stage; return how many seeds have a curve."""
    splits = labels_of(network.cube, "size_curve", "split")
    split = stage if stage in splits else splits[0]
    score, rest = (network.values(f"size_curve/{n}").sel(stage=stage, split=split) for n in ("score", "complement"))
    scale = _scale(network)
    sizes = network.values("size_curve/density").sel(stage=stage).values  # (seed, size_point), the same for every seed
    known = np.isfinite(sizes).any(0)
    count = int(np.isfinite(score.values).any(-1).sum())
    kept = 100 * np.nanmax(np.where(np.isnan(sizes), -1, sizes)[:, known], 0)
    names = ("the cut", "without the cut", "the stage's own mask", "unmasked")
    labels = names if alone else tuple(f"{network.label}: {n}" for n in names)
    inks = (colour(0), colour(1)) if alone else (colour(i), colour(i))
    for k, (values, dash) in enumerate(((score, "-"), (rest, "--"))):
        data = scale * values.values[:, known]  # (seed, size_point)
        marker = MARKERS[(k if alone else i) % len(MARKERS)]
        if not count:
            axes.plot([], [], color=inks[k], linestyle=dash, marker=marker, markersize=2.5, label=labels[k])
            continue
        data = data[np.isfinite(data).any(1)]
        mean = data.mean(0)
        axes.plot(
            kept, mean, color=inks[k], linestyle=dash, marker=marker, markersize=2.5, linewidth=1, label=labels[k]
        )
        if count > 1:
            deviation = data.std(0, ddof=1)
            axes.fill_between(kept, mean - deviation, mean + deviation, color=inks[k], alpha=0.2, linewidth=0)
    place = 100 * spread(network.values("size_curve/threshold").sel(stage=stage)).mean
    own, whole = (scale * _scored(network, s, split) for s in (stage, "unmasked"))
    ink = "black" if alone else inks[0]
    if place > 0:
        axes.axvline(place, color=ink, linestyle=":", linewidth=0.9)
        if np.isfinite(own):
            axes.plot(
                place, own, color=ink, marker="*", markersize=8, linestyle=":", linewidth=0.9, label=labels[2], zorder=4
            )
    if np.isfinite(whole):
        axes.axhline(
            whole, color=GREY if alone else inks[0], linewidth=0.8, linestyle=DASHES[2], label=labels[3], zorder=1
        )
    _areas(axes, network, stage, split, i, alone)
    return Spread(np.nan, np.nan, count)


def _areas(axes: Axes, network: Network, stage: str, split: str, i: int, alone: bool) -> None:
    """Write the split and the two areas above the panel, under the stage's name."""
    areas = []
    for name in ("cpr", "cmd"):
        if network.has(f"size_curve/{name}"):
            found = spread(network.values(f"size_curve/{name}").sel(stage=stage, split=split))
            if found.count:
                more = f" ± {found.deviation:.2f}" if found.count > 1 else ""
                areas.append(f"{name.upper()} {found.mean:.2f}{more}")
    who = f"on {split}" if alone else network.label[:18]
    said = [who, *areas] if areas or alone else []
    if not alone and i == 0:
        axes.set_title(f"{axes.get_title()} on {split}")
    if said:
        before = axes.get_title()
        axes.set_title(f"{before}\n{', '.join(said)}", fontsize=SMALL + 1)
        axes.title.set_multialignment("center")


def _metric(network: Network) -> str:
    """Return the score that was measured: that whose name the variable's own text has; `score` where none has."""
    text = str(network.cube["size_curve"]["score"].attrs.get("long_name", ""))
    names = [str(n) for n in network.cube["scores"].data_vars] if "scores" in network.cube.children else []
    return next((n for n in names if text == f"mean {n} under the cut"), "score")


def _scale(network: Network) -> float:
    """Return 100 for a score that is shown in percent, as the tables show it, and 1 for any other."""
    name = f"scores/{_metric(network)}"
    return 100.0 if network.has(name) and network.cube[name].attrs.get("table") == "percent" else 1.0


def _scored(network: Network, stage: str, split: Any) -> float:
    """Return the mean score of a stage's own mask, or of the unmasked network; NaN where there is none."""
    name = f"scores/{_metric(network)}"
    if not network.has(name) or stage not in labels_of(network.cube, "scores", "stage"):
        return float("nan")
    return spread(network.values(name).sel(stage=stage, split=split)).mean
