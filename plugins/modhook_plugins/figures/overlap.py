"""Overlap of two functions' masks, layer by layer (reference, section 7), beside what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
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
    spreads,
    styled,
)
from modhook_plugins.figures.networks import Network, layer_labels, networks, setting, short_key
from modhook_plugins.figures.scales import one_scale


class _Overlap(Figure):
    """IoU and IoMin of one pair of stages."""

    requires = ("overlap/iou", "overlap/iomin")
    pair: ClassVar[tuple[str, str]]
    title: ClassVar[str]
    pool: ClassVar[str] = ""

    def apart_by_design(self, found: Sequence[Network]) -> str:
        """Return a note on what the two functions cannot share, because the task keeps it apart; empty where there is nothing."""
        return ""

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network; the black marks are what independent masks of the same densities would give."""
        found, note = networks(cubes)
        apart = len(found)
        if self.pool:
            found += _pooled(cubes, self.pool)
        shown: list[Spread] = []
        notes = [note, self.apart_by_design(found[:apart])]
        if found[apart:]:
            notes.append("bars of a pooled panel hold the difference between its points")
        with styled():
            figure, every = panels([n.label for n in found], self.title)
            for number, (axes, network) in enumerate(zip(every, found, strict=True)):
                values = {
                    name: network.values(f"overlap/{name}").sel(stage=self.pair[0], other=self.pair[1])
                    for name in ("iou", "iomin", "iou_chance", "iomin_chance")
                    if network.has(f"overlap/{name}")
                }
                # Tensors that this network does not have are NaN in every run; those of a run still to come are not known to be.
                names = values["iou"]["parameter"].values
                there = [
                    i
                    for i in range(len(names))
                    if bool(values["iou"].isnull().all()) or not bool(values["iou"][..., i].isnull().all())
                ]
                values = {name: v.isel(parameter=there) for name, v in values.items()}
                series = [
                    Series(label, spreads(values[name], "parameter"))
                    for label, name in (("IoU", "iou"), ("IoMin", "iomin"))
                ]
                chance = [
                    Series("chance", spreads(values[f"{name}_chance"], "parameter"))
                    for name in ("iou", "iomin")
                    if f"{name}_chance" in values
                ]
                if not chance:
                    notes.append("chance: run `modhook analyse CUBE sharing`")
                grouped_bars(
                    axes, layer_labels(names[there]), series, "overlap (0 to 1)", 1, lambda v: f"{v:.2f}", 1.0, chance
                )
                if number < apart:  # a panel of several modes has its number in its title
                    shown += [s for one in series for s in one.values]
            one_scale(every)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), *dict.fromkeys(notes))
        return figure


def _pooled(cubes: Sequence[xr.DataTree], key: str) -> list[Network]:
    """Return the networks that have several values of a setting, over all of these, as the paper's figure shows them."""
    found = []
    for network in networks(cubes, (key,))[0]:
        count = int(network.cube.sizes.get(key, 1))
        if count > 1:
            label = f"{network.label}, {count} {short_key(key)}s pooled: n up to {count * network.seeds}"
            found.append(attrs.evolve(network, label=label))
    return found


class AddMulOverlap(_Overlap):
    """IoU and IoMin of the masks for addition and multiplication, per layer. Cubes: add/mul, one panel per network."""

    rank = 20
    tasks = ("addmul",)
    pair = ("add", "mul")
    title = "add/mul: overlap of the two operations' masks"


class TupleOverlap(_Overlap):
    """IoU and IoMin of the masks for the two sums, per layer. Cubes: double addition, one panel per network; an LSTM has one per mode
    and, as in the paper's figure, one of its modes pooled.
    """

    rank = 20
    tasks = ("double_addition",)
    pair = ("tuple1", "tuple2")
    title = "Double addition: overlap of the two sums' masks"
    pool = "task.mode"

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """More than two sums have more than one overlap."""
        most = max(int(setting(cube, "task.tuples", 2)) for cube in cubes)
        return (
            ""
            if most == 2
            else f"it needs cubes of two sums, not of {most} (the group overlap holds every pair of them)"
        )

    def apart_by_design(self, found: Sequence[Network]) -> str:
        """An LSTM can have one input or output for both sums (`same_input`, `same_output`, `same_io`); else none is shared."""
        modes = {str(n.point.get("task.mode", setting(n.cube, "task.mode", "together"))) for n in found}
        return "" if any(mode.startswith("same") for mode in modes) else "each sum has inputs and outputs of its own"
