"""The look of modhook's figures: one style, colours, hatches, markers and dashes, so that colour never stands alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (6, 2)), (0, (3, 1, 1, 1)))
GREY = "0.35"


class Shown(Figure):
    """A figure that a notebook shows without pyplot, and that is drawn in modhook's style whatever the user's settings are."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the figure, as matplotlib's `Figure.savefig` does; ticks are made only now, so the style is needed once more."""
        with styled(fresh=True):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=130)
        return data.getvalue()


def styled(*, fresh: bool = False) -> Any:
    """Return a context in which modhook's style is used; `fresh` begins with matplotlib's defaults, whatever the user's settings are."""
    style = mpl.rc_params_from_file(str(files("modhook.plotting") / "modhook.mplstyle"), use_default_template=False)
    start = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")} if fresh else {}
    return mpl.rc_context({**start, **style})


def colour(i: int) -> str:
    """Return the colour number `i` of the style's cycle, in a styled context."""
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    return f"#{cycle[i % len(cycle)]}".replace("##", "#")


def below(figure: Figure, text: str, columns: int = 0) -> None:
    """Write a line under a figure, inside it, and the legend of its panels too where it is to have columns."""
    if columns:
        figure.legend(loc="outside lower center", ncols=columns, title=text or None, title_fontproperties={"size": 6})
    elif text:
        figure.supxlabel(text, fontsize=6, color=GREY)


ITSELF = "(itself)"
"""How a row or column without a name of its own is called: the part of a layer that has no parts."""
_NAMED = 80
"""Up to so many rows, each has its name."""


def share_maps(
    shares: Mapping[str, np.ndarray[Any, Any]], rows: Sequence[str], columns: Sequence[str], title: str
) -> tuple[Shown, str]:
    """Draw shares as colours, a panel per name, in a styled context.

    Args:
        shares: {name: shares (rows, columns), 0 to 1}; NaN is grey. A single panel may be named "".
        rows: their labels, paths, without what all begin with.
        columns: their labels; an empty one is written `ITSELF`.
        title: of the figure.

    Returns:
        The figure, and what all rows lie within ("rows within encoder.layer"), or an empty text.
    """
    names, common = _short([r or ITSELF for r in rows])
    texts = [c or ITSELF for c in columns]
    top = max(1e-9, *(100 * float(np.nanmax(s, initial=0)) for s in shares.values()))
    longest = max(map(len, texts), default=0)
    wide = max((0.2 if len(texts) > 3 else 0.42) * len(texts), 0.9)  # inches of a panel
    high = max(0.7, min(9.0, (0.17 if len(names) <= 40 else 0.11) * len(names)))
    beside = 0.055 * max(map(len, names), default=0) + 0.2
    figure = Shown(figsize=(max(3.2, beside + (wide + 0.15) * len(shares) + 0.9), high + 0.075 * longest + 1.0))
    panels = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    for axes, (name, share) in zip(panels, shares.items(), strict=True):
        blues = mpl.colormaps["Blues"].with_extremes(bad="0.85")
        image = axes.imshow(100 * share, cmap=blues, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        axes.set_title(name or title)
        axes.set_xticks(range(len(texts)), texts, rotation=0 if longest < 3 else 90, fontsize=6)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for (i, j), value in np.ndenumerate(100 * share) if share.size <= 40 else ():
            if np.isfinite(value):
                ink = "white" if value > 0.6 * top else "black"
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=5, color=ink)
    every = max(1, -(-len(names) // _NAMED))
    panels[0].set_yticks(range(0, len(names), every), names[::every], fontsize=6 if len(names) <= 40 else 4.5)
    if list(shares) != [""]:
        figure.suptitle(title)
    figure.colorbar(image, ax=list(panels), shrink=min(1.0, 1.6 / high), label="share of its weights [%]")
    return figure, f"rows within {common}" if common else ""


def _short(names: Sequence[str]) -> tuple[list[str], str]:
    """Return paths without what all of them begin with, and that."""
    parts = [n.split(".") for n in names]
    count = 0
    while len(parts) > 1 and all(len(p) > count + 1 for p in parts) and len({p[count] for p in parts}) == 1:
        count += 1
    return [".".join(p[count:]) for p in parts], ".".join(parts[0][:count]) if parts else ""
