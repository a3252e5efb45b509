"""SCAN (reference, section 7): accuracy on each split's test set under the full-problem mask and under the split's own mask."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import Series, grouped_bars, say_seeds, spread, styled, sweep_points


class ScanAccuracy(Figure):
    """Per split: the network before masking, under the control's mask, under the split's own."""

    requires = ("scores/accuracy",)
    tasks = ("scan",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per sweep point of the first cube."""
        accuracy = cubes[0]["scores"]["accuracy"]
        splits = [str(s) for s in accuracy["split"].values]
        stages = {str(s) for s in accuracy["stage"].values}
        points = sweep_points(accuracy)
        with styled():
            figure = MatplotlibFigure(figsize=(3.5, 2.4 * len(points)))
            shown: list[Series] = []
            for axes, point in zip(figure.subplots(len(points), squeeze=False)[:, 0], points, strict=True):
                at = accuracy.sel(point)

                def of(stage: str, split: str, at: xr.DataArray = at) -> xr.DataArray:
                    # The control is trained on the simple split: it is that split's own mask.
                    return at.sel(stage=stage if stage in stages else "control", split=split)

                series = [
                    Series("before masking", tuple(spread(of("unmasked", s)) for s in splits)),
                    Series("full-problem mask", tuple(spread(of("control", s)) for s in splits)),
                    Series("the split's own mask", tuple(spread(of(s, s)) for s in splits)),
                ]
                grouped_bars(axes, [s.replace("_", " ") for s in splits], series)
                axes.set_title(
                    ", ".join(f"{k} = {v}" for k, v in point.items()) or "SCAN: accuracy on each split's test set"
                )
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, columnspacing=1, handlelength=1.2)
                shown += series
            say_seeds(figure, shown, accuracy.sizes["seed"])
        return figure
