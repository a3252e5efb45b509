"""How a fit went, and what cuts of its ranking score."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from modhook.errors import UserError
from modhook.plotting.style import GREY, Shown, below, colour, styled
from modhook.values.arguments import shown

# variable, label, scale, whether the axis may be logarithmic, whether a second line belongs to it
_PANELS = (
    ("loss", "loss", 1, True, ("mask_loss", "unmasked_loss")),
    ("density", "weights kept [%]", 100, False, ()),
    ("gradient_norm", "gradient norm", 1, True, ()),
)
_SAID = {"loss": "sampled masks", "mask_loss": "deterministic mask", "unmasked_loss": "no mask"}
_DASHES = ("-", "--", ":")


def history(fit: Any) -> Shown:
    """Return the figure; see `Plot.history`. Raises `UserError`."""
    if not isinstance(fit, xr.Dataset) and not isinstance(getattr(fit, "history", None), xr.Dataset):
        raise UserError(f"plot.history draws a Fit or its history, not {shown(fit)}.")
    data: xr.Dataset = fit if isinstance(fit, xr.Dataset) else fit.history
    drawn = [p for p in _PANELS if p[0] in data and np.isfinite(data[p[0]].values).any()]
    if not drawn:
        raise UserError("there is no history to draw: a ranking without training has none.")
    steps = data["step"].values
    with styled(fresh=True):
        figure = Shown(figsize=(2.4 * len(drawn) + 0.2, 2.2))
        every = figure.subplots(1, len(drawn), squeeze=False).ravel()
        for axes, (name, label, scale, log, others) in zip(every, drawn, strict=True):
            there = [name, *(n for n in others if n in data and np.isfinite(data[n].values).any())]
            for i, one in enumerate(there):
                values = scale * np.asarray(data[one].values, dtype=float)
                known = np.isfinite(values)
                marker = "o" if known.sum() == 1 else ""
                axes.plot(
                    steps[known],
                    values[known],
                    color=colour(i),
                    linestyle=_DASHES[i],
                    marker=marker,
                    label=_SAID.get(one, one),
                )
            if len(there) > 1:
                axes.legend(fontsize=6)
            values = np.asarray(data[name].values, dtype=float)
            values = values[np.isfinite(values)]
            if log and values.min() > 0 and values.max() > 100 * values.min():
                axes.set_yscale("log")
            elif values.min() >= 0:
                axes.set_ylim(0, None)
            axes.set_title(label)
            axes.set_xlabel("step")
        if not isinstance(fit, xr.Dataset):
            below(figure, f"{fit.masks.kept():,} of {fit.masks.size:,} weights kept ({100 * fit.masks.density:.3g} %)")
    return figure


def curve(data: Any) -> Shown:
    """Return the figure; see `Plot.curve`. Raises `UserError`."""
    if not isinstance(data, xr.Dataset) or not {"score", "complement", "density"} <= set(data.variables):
        raise UserError(
            "plot.curve draws what fit.curve(batches, score) returned: a Dataset with score and complement."
        )
    share = 100 * data["density"].values
    with styled(fresh=True):
        figure = Shown(figsize=(4, 2.8))
        axes = figure.subplots()
        axes.plot(share, data["score"].values, color=colour(0), marker="o", markersize=3, label="the cut")
        axes.plot(
            share,
            data["complement"].values,
            color=colour(1),
            linestyle="--",
            marker="s",
            markersize=2.5,
            label="without the cut",
        )
        for name, text, dashes in (("unmasked", "unmasked", "-"), ("nothing", "no weight", (0, (1, 2)))):
            if np.isfinite(data.attrs.get(name, np.nan)):
                axes.axhline(data.attrs[name], color="0.5", linewidth=0.8, linestyle=dashes, label=text, zorder=1)
        if np.isfinite(threshold := data.attrs.get("threshold", np.nan)):
            axes.axvline(
                100 * threshold, color=GREY, linewidth=0.9, linestyle=":", label="the sampler's threshold", zorder=1
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("weights kept [%]")
        axes.set_ylabel("score")
        axes.set_title("Score against size")
        areas = [f"{n.upper()} {data.attrs[n]:.3f}" for n in ("cpr", "cmd") if np.isfinite(data.attrs.get(n, np.nan))]
        below(figure, ", ".join(areas), 3)
    return figure
