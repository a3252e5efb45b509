"""Accuracy under each mask and its inverse (reference, section 7), for add/mul and for double addition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    Series,
    Spread,
    grouped_bars,
    panels,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    styled,
)
from modhook_plugins.figures.networks import Network, labels_of, networks, setting
from modhook_plugins.figures.scales import one_scale

# (group, variable, stage)
Places = Sequence[tuple[str, str, str]]


class AddMulPerformance(Figure):
    """Groups unmasked, control, add, not add, mul, not mul; a bar for each operation's problems. Cubes: add/mul, one panel per network."""

    rank = 0
    requires = ("scores/accuracy", "inverse/accuracy")
    tasks = ("addmul",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network: cubes of the FNN and of the LSTM stand side by side."""
        places = (
            *_unmasked(cubes),
            ("control", "scores", "control"),
            ("add", "scores", "add"),
            ("not add", "inverse", "add"),
            ("mul", "scores", "mul"),
            ("not mul", "inverse", "mul"),
        )
        series = (("add problems", "add"), ("mul problems", "mul"))
        known = all(occur_in_training(cube) for cube in cubes)
        return _draw(
            cubes,
            "add/mul: accuracy under each mask",
            places,
            series,
            "all problems occur in training" if known else "",
        )


class TuplePerformance(Figure):
    """Groups unmasked, control, pair 1, not pair 1, pair 2, not pair 2; one bar for each pair's sum. Cubes: double addition, with inverse
    tests that invert the input and output layers too, and with ones that do not; one panel per network. More pairs than two have
    more groups and bars.
    """

    rank = 0
    requires = ("scores/accuracy", "inverse/accuracy")
    tasks = ("double_addition",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network, with the pairs that all cubes have."""
        stages = [labels_of(cube, "scores", "stage") for cube in cubes]
        names = [s for s in stages[0] if all(s in others for others in stages)]
        tuples = [name for name in names if name.startswith("tuple")]
        pair = "pair" if all(setting(cube, "task.terms", 2) == 2 for cube in cubes) else "tuple"
        made = "sum" if all(setting(cube, "task.op", "add") == "add" for cube in cubes) else "result"
        places = [*_unmasked(cubes), ("control", "scores", "control")]
        for number, name in enumerate(tuples, 1):
            places += [(f"{pair} {number}", "scores", name), (f"not {pair} {number}", "inverse", name)]
        series = [(f"{made} of {pair} {number}", name) for number, name in enumerate(tuples, 1)]
        return _draw(cubes, "Double addition: accuracy under each mask", places, series)


def _unmasked(cubes: Sequence[xr.DataTree]) -> Places:
    """Return the place of the network before masking, which all masks are to be compared with, where every cube has it."""
    has = all("unmasked" in labels_of(cube, "scores", "stage") for cube in cubes)
    return [("unmasked", "scores", "unmasked")] if has else []


def occur_in_training(cube: xr.DataTree) -> bool:
    """Return whether a training set of add/mul, drawn with replacement, is expected to hold all but a thousandth of the problems."""
    if any(str(d).startswith("task.") for d in cube.attrs.get("modhook_run_dims", ())):
        return False  # they differ from point to point
    problems = 2 * 100 ** int(setting(cube, "task.n_digits", 2))
    return math.exp(-int(setting(cube, "task.train_size", 1_000_000)) / problems) < 1e-3


def _draw(
    cubes: Sequence[xr.DataTree], title: str, places: Places, series: Sequence[tuple[str, str]], *notes: str
) -> MatplotlibFigure:
    """Draw the accuracy of every place on every series' split."""
    found, note = networks(cubes)
    shown: list[Spread] = []
    with styled():
        figure, every = panels([_label(n) for n in found], title)
        for axes, network in zip(every, found, strict=True):
            values = {g: network.values(f"{g}/accuracy") for g in ("scores", "inverse")}
            bars = [
                Series(label, tuple(spread(values[g].sel(stage=stage, split=split)) for _, g, stage in places))
                for label, split in series
            ]
            grouped_bars(axes, [name for name, *_ in places], bars)
            axes.set_xlabel('mask; "not": the weights that it does not keep')
            shown += [s for one in bars for s in one.values]
        one_scale(every)
        shared_legend(figure, *every)
        say_seeds(figure, shown, seeds(found), note, *notes)
    return figure


def _label(network: Network) -> str:
    """Return the network's label, and what its inverse test does to input and output layers."""
    if not setting(network.cube, "analyses.inverse.io"):
        return network.label
    kept = "all weights" if setting(network.cube, "analyses.inverse.io_mask") == "full" else "the control's mask"
    return f"{network.label}\ninverse: input and output layers keep {kept}"
