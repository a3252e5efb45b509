"""The look of modhook's figures: one style, colours, hatches, markers and dashes, so that colour never stands alone."""

from __future__ import annotations

import io
from importlib.resources import files
from typing import Any

import matplotlib as mpl
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
