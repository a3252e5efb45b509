"""SCAN (reference, section 7): accuracy under a split's own mask against a network trained on that split from scratch."""

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
from modhook_plugins.figures.networks import Network, labels_of, networks, setting
from modhook_plugins.figures.scales import one_scale
from modhook_plugins.figures.scan_accuracy import masked, own_stage

_NONE = Spread(float("nan"), float("nan"), 0)


class ScanBaselines(Figure):
    """Per split: its own mask's accuracy, and that of a network trained on it. Cubes: SCAN with masks (`scan`, `scan_transformer`)
    and without (`scan_baselines`), of the same networks; one panel per network.
    """

    rank = 5
    requires = ("scores/accuracy",)
    tasks = ("scan",)

    def lacks(self, cubes: Sequence[xr.DataTree]) -> str:
        """It compares cubes of two studies."""
        with_masks = [masked(c) for c in cubes]
        if all(with_masks) or not any(with_masks):
            other = "of networks trained on each split (studies/scan_baselines.toml)"
            wanted = other if all(with_masks) else "with masks (studies/scan.toml)"
            return f"it compares two studies and also needs a cube {wanted}; give both cubes"
        return ""

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one panel per kind of network that has masks; a split without such a network leaves a gap."""
        found, note = networks([c for c in cubes if masked(c)])
        scratch = networks([c for c in cubes if not masked(c)], limit=100)[0]
        shown: list[Spread] = []
        with styled():
            figure, every = panels([n.label for n in found], "SCAN: the split's own mask and training from scratch")
            for axes, network in zip(every, found, strict=True):
                accuracy = network.values("scores/accuracy")
                base = setting(network.cube, "task.train_split", "simple")
                splits = [s for s in map(str, accuracy["split"].values) if s != base]
                series = [
                    Series(
                        "own mask", tuple(spread(accuracy.sel(stage=own_stage(accuracy, s), split=s)) for s in splits)
                    ),
                    Series("trained on the split", tuple(_scratch(scratch, network, s) for s in splits)),
                ]
                grouped_bars(axes, [s.replace("_", " ") for s in splits], series)
                axes.set_xlabel("test set of the split")
                shown += [s for one in series for s in one.values]
            one_scale(every)
            shared_legend(figure, *every)
            say_seeds(figure, shown, max(seeds(found), seeds(scratch)), note)
        return figure


def _scratch(scratch: Sequence[Network], like: Network, split: str) -> Spread:
    """Return the accuracy on a split of the same kind of network, trained on it."""
    for network in scratch:
        trained_on = network.point.get("task.train_split", setting(network.cube, "task.train_split"))
        if network.kind == like.kind and trained_on == split and split in labels_of(network.cube, "scores", "split"):
            return spread(network.values("scores/accuracy").sel(stage="unmasked", split=split))
    return _NONE
