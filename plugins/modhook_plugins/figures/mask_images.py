"""Mask images (reference, section 6): where in each tensor are the weights of one function, of several, of the control alone?"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.patches import Patch

from modhook import Figure
from modhook_plugins.figures.common import PAGE, colour, gap, legend_under, styled, write_note
from modhook_plugins.figures.networks import Network, layer_labels, networks

_ACROSS, _MOST = 5, 20
_SHARED = ("several", "control only", "none")


class MaskImages(Figure):
    """Per weight matrix a picture: kept by one stage (its colour), by several (dark), by the control alone (grey), by none (white).
    Cubes: any with the analysis mask_images; the first network of the first cube, its first finished seed.
    """

    rank = 70
    requires = ("mask_images/counts",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one picture per matrix; a cell that stands for several weights mixes their colours by number."""
        found = networks(cubes, limit=1)[0][0]
        with styled():
            seed, counts = _first(found)
            names = [str(p) for p in counts["parameter"].values]
            there = [
                p
                for p, name in enumerate(names)
                if np.isfinite(counts.values[p, 0, 0, 0]) and np.isfinite(counts.values[p, :, 1, 0]).any()
            ]
            chosen, kinds = there[:_MOST], [str(k) for k in counts["kind"].values]
            rows = max(1, -(-len(chosen) // _ACROSS))
            figure = MatplotlibFigure(figsize=(PAGE, 1.65 * rows + 0.6))
            grid = figure.subplots(rows, min(_ACROSS, max(1, len(chosen))), squeeze=False).ravel()
            figure.suptitle(f"Who keeps which weight: {found.label}")
            inks = _inks(kinds)
            for axes, p, label in zip(grid, chosen, layer_labels([names[p] for p in chosen]), strict=False):
                _picture(axes, counts.values[p], inks, label)
            for axes in grid[max(1, len(chosen)) :]:
                axes.set_axis_off()
            if not chosen:
                gap(grid[0], "no run has finished yet")
            patches = [Patch(facecolor=i, edgecolor="0.5", linewidth=0.4) for i in inks]
            legend_under(figure, patches, [_say(k) for k in kinds])
            more = f"; {len(chosen)} of {len(there)} matrices" if len(chosen) < len(there) else ""
            more += f"; of {len(cubes)} cubes the first" if len(cubes) > 1 else ""
            shown = f"seed {seed} of {found.seeds}: no spread; rows are outputs{more}"
            write_note(figure, shown if chosen else "no run has finished yet")
        return figure


def _first(network: Network) -> tuple[int, xr.DataArray]:
    """Return the first seed that has pictures, and them: (parameter, row, column, kind); the first seed's if none has."""
    array = network.cube["mask_images"].data_vars["counts"].sel(network.point)
    for i, seed in enumerate(array["seed"].values):
        counts = array.isel(seed=i).load()
        if np.isfinite(counts.values).any():
            return int(seed), counts
    return 0, array.isel(seed=0).load()


def _inks(kinds: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return one colour per kind: the style's for the stages, black, grey and white for the others."""
    fixed = dict(zip(_SHARED, ("black", "0.72", "white"), strict=True))
    return [mpl.colors.to_rgb(fixed.get(kind) or colour(i)) for i, kind in enumerate(kinds)]


def _picture(
    axes: Axes, counts: np.ndarray[tuple[int, ...], np.dtype[np.float32]], inks: Sequence[tuple[float, float, float]], label: str
) -> None:
    """Draw one tensor's cells (rows, columns, kinds), mixed by number."""
    inside = np.isfinite(counts[..., 0])
    cells = counts[inside.any(1)][:, inside.any(0)]  # (H, W, kinds)
    total = np.maximum(cells.sum(-1, keepdims=True), 1)
    axes.imshow((cells / total) @ np.array(inks), aspect="auto", interpolation="nearest")
    axes.set_title(label, fontsize=6.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def _say(kind: str) -> str:
    return {"several": "several stages", "none": "no stage"}.get(kind, kind if kind in _SHARED else f"{kind} only")
