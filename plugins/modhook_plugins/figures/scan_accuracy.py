"""SCAN (reference, section 7): accuracy on each split's test set under the control's mask and under the split's own."""

from __future__ import annotations

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
from modhook_plugins.figures.networks import labels_of, networks
from modhook_plugins.figures.scales import one_scale


class ScanAccuracy(Figure):
    """Per split: before masking, under the control's mask, under the split's own. Cubes: SCAN with masks, one panel per network."""

    rank = 0
    requires = ("scores/accuracy",)
    tasks = ("scan",)

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """Networks that were trained without masks have nothing to show here."""
        return (
            "" if all(masked(c) for c in cubes) else "it needs cubes with masks (the figure scan_baselines takes both)"
        )

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per network."""
        found, note = networks(cubes)
        shown: list[Spread] = []
        with styled():
            figure, every = panels([n.label for n in found], "SCAN: accuracy on each split's test set")
            for axes, network in zip(every, found, strict=True):
                accuracy = network.values("scores/accuracy")
                splits = [str(s) for s in accuracy["split"].values]
                stages = {
                    "before masking": ["unmasked"] * len(splits),
                    "control's mask": ["control"] * len(splits),
                    "the split's own mask": [own_stage(accuracy, s) for s in splits],
                }
                series = [
                    Series(
                        label,
                        tuple(spread(accuracy.sel(stage=a, split=s)) for a, s in zip(of, splits, strict=True)),
                    )
                    for label, of in stages.items()
                ]
                grouped_bars(axes, [s.replace("_", " ") for s in splits], series)
                axes.set_xlabel("test set of the split")
                shown += [s for one in series for s in one.values]
            one_scale(every)
            shared_legend(figure, *every)
            say_seeds(figure, shown, seeds(found), note)
        return figure


def masked(cube: xr.DataTree) -> bool:
    """Return whether a cube's study learned masks."""
    return "control" in labels_of(cube, "scores", "stage")


def own_stage(accuracy: xr.DataArray, split: str) -> str:
    """Return the stage that is trained on a split: the control is, on the split of base training."""
    return split if split in {str(s) for s in accuracy["stage"].values} else "control"
