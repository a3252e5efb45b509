"""How much accuracy is lost under half of the control's mask (reference, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook import Figure
from modhook_plugins.figures.common import (
    COLUMN,
    PAGE,
    Series,
    grouped_bars,
    say_seeds,
    seeds,
    shared_legend,
    spread,
    styled,
)
from modhook_plugins.figures.networks import Network, networks, setting


class HalfMask(Figure):
    """Accuracy under the control's mask minus that with only its early, or only its late tensors masked. Cubes: any with the
    analysis half_mask; one group per network (the paper has six).
    """

    rank = 60
    requires = ("half_mask/drop",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> MatplotlibFigure:
        """Draw one group of bars per network; several random choices of tensors are averaged within their seed."""
        found, note = networks(cubes, limit=12)
        with styled():
            figure = MatplotlibFigure(figsize=(COLUMN if len(found) <= 3 else PAGE, 2.6))
            axes = figure.subplots()
            axes.set_title("Accuracy lost under half of the control's mask")
            drops = [n.values("half_mask/drop").mean("choice") for n in found]  # (seed, half) each
            series = [
                Series(f"{half} layers masked", tuple(spread(d.sel(half=half)) for d in drops))
                for half in ("early", "late")
            ]
            labels = [_label(n) for n in found]
            grouped_bars(axes, labels, series, "drop [percentage points]", top=None, number=lambda mean: f"{mean:.1f}")
            ends = [
                100 * (s.mean + side * (s.deviation if s.count > 1 else 0))
                for one in series
                for s in one.values
                for side in (-1, 1)
                if s.count
            ]
            low, high = min([0.0, *ends]), max([1.0, *ends])
            axes.set_ylim(low - 0.15 * (high - low) if low < 0 else 0, high + 0.15 * (high - low))
            axes.axhline(0, color="0.15", linewidth=0.6)
            shared_legend(figure, axes)
            say_seeds(figure, [s for one in series for s in one.values], seeds(found), note)
        return figure


def _label(network: Network) -> str:
    """Return the task, the network, what else tells it apart, and whether its halves are random, each on its own line."""
    task = str(setting(network.cube, "task.name", ""))
    random = ["random halves"] if setting(network.cube, "analyses.half_mask.random", 0) else []
    return "\n".join([task, *(part for part in network.label.split(", ") if part != task), *random])
