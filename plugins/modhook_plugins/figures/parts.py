"""Which weights belong to which functions, as an UpSet plot: a bar per subset of functions."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure, masks_from, parts, plot
from modhook_plugins.figures.controls import functions
from modhook_plugins.figures.networks import networks

_MOST = 10


class Parts(Figure):
    """Weights that exactly these functions keep, for every subset of two to ten functions, means over seeds. Cubes: any with two functions
    or more, one network at a time.
    """

    rank = 62

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Return that there are several networks, or too few or too many functions, or no seed with all masks."""
        if len(networks(cubes)[0]) > 1:
            return "it shows the parts of one network; give one cube of a study without a sweep"
        names = functions(cubes[0])
        if not 2 <= len(names) <= _MOST:
            return f"it needs two to {_MOST} functions with masks, and there are {len(names)}"
        return "" if _whole(cubes[0], names) else "it needs a seed in which every function has a mask"

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw the parts; a mark is what random masks with as many weights of each tensor would have."""
        (cube,) = cubes
        names = functions(cube)
        seeds = _whole(cube, names)
        each = [parts({name: masks_from(cube, seed, name) for name in names}) for seed in seeds]
        return plot.parts(xr.concat(each, xr.DataArray(seeds, dims="seed", name="seed")))


def _whole(cube: xr.DataTree, names: Sequence[str]) -> list[int]:
    """Return the seeds in which every function has a mask."""
    status = cube["runs"].to_dataset()["status"].sel(stage=list(names))
    done = (status == 1).all([d for d in status.dims if d != "seed"])
    return [int(seed) for seed in done["seed"].values[done.values]]
