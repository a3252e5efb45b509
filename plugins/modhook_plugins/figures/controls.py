"""Masks beside their controls: what each scores at equal size, and how large it is at an equal score."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure, compared, plot
from modhook_plugins.figures.networks import labels_of, networks

_GROUPS = ("controls", "random", "magnitude")


class Controls(Figure):
    """Score at equal size and size at an equal score, of each function's mask and of every control that the cube has, with intervals over
    seeds. Cubes: any with `[controls]`, and with the analyses `random` and `magnitude`; one row per network.
    """

    rank = 8

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Return that a cube has no control, or no function with a mask."""
        for cube in cubes:
            if not set(_GROUPS) & set(cube.children):
                return "it needs a control: write [controls] into the study, or run `modhook analyse CUBE random`"
            if not functions(cube):
                return "it needs a function with a mask, beside the control"
        return ""

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one row per network; black lines are each network without a mask."""
        found, _ = networks(cubes, limit=4)
        every = [compared(n.cube, **n.point) for n in found]
        if len(every) == 1:
            return plot.controls(every[0])
        labels = xr.DataArray([n.label for n in found], dims="network", name="network")
        return plot.controls(xr.concat(every, labels, join="outer", fill_value={"reached": 0, "measured": 0}))


def functions(cube: xr.DataTree) -> list[str]:
    """Return the stages that leave a mask, the control aside."""
    if "history" not in cube.children or "stage" not in cube["history"].coords:
        return []
    return [s for s in labels_of(cube, "history", "stage") if s != "control"]
