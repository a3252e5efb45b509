"""`modhook.plot`: masks, fits and datasets as matplotlib figures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from modhook.errors import UserError, listing, near_miss
from modhook.plotting.settings import ready
from modhook.values.arguments import shown

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from torch import nn

    from modhook.fit import Fit
    from modhook.masks import Masks

_KINDS = {
    "curve": ("score", "complement", "density"),
    "parts": ("exclusive", "shared", "member"),
    "overlaps": ("iou", "iou_chance", "function"),
    "controls": ("equal_size", "equal_score", "against"),
}
"""By which variables and coordinates a dataset is known."""


class Plot:
    """Draws what modhook returns: `modhook.plot(x)` for whatever `x` is, `modhook.plot.density(masks)` for one figure by name.

    Every call returns a matplotlib `Figure`, which a notebook shows and `figure.savefig("x.pdf")` writes; the user's matplotlib
    settings change nothing, and pyplot knows nothing of it.
    """

    def __call__(self, what: Any, **options: Any) -> Figure:
        """Draw masks (`density`), a fit or its history (`history`), the datasets of `fit.curve` (`curve`), `modhook.parts` (`parts`),
        `modhook.overlaps` (`overlaps`) and `modhook.compared` (`controls`), and answers: beside their controls, or their parts
        where they have none.

        Args:
            what: `Masks`, {name: Masks}, a `Fit`, an `Answer`, or one of these datasets.
            options: those of the method for it.

        Raises:
            UserError: anything else, an option that there is not, or matplotlib cannot draw here.
        """
        what = _drawn_of(what)
        kind = self._kind(what)
        draw = getattr(self, kind)
        known = list(inspect.signature(draw).parameters)[1:]
        if unknown := [name for name in options if name not in known]:
            has = f"it has {listing(known)}" if known else "it has none"
            raise UserError(f"plot.{kind} has no option {unknown[0]!r}{near_miss(unknown[0], known)}; {has}.")
        return draw(what, **options)  # type: ignore[no-any-return]

    def density(self, masks: Masks | Mapping[str, Masks]) -> Figure:
        """Draw the share of weights that masks keep of each tensor; of several functions side by side."""
        ready()
        from modhook.plotting.of_masks import density

        return density(masks)

    def layers(self, masks: Masks | Mapping[str, Masks], *, model: nn.Module | None = None) -> Figure:
        """Draw the share of weights that masks keep in each part of each layer (`Masks.by`): a whole network in one picture.

        Args:
            masks: masks, or {function: masks}, a panel each.
            model: as in `Masks.by`.
        """
        ready()
        from modhook.plotting.of_layers import layers

        return layers(masks, model)

    def heads(self, masks: Masks | Mapping[str, Masks], *, model: nn.Module | None = None) -> Figure:
        """Draw the share of weights that masks keep of each head of each attention (`Masks.heads`).

        Args:
            masks: masks, or {function: masks}, a panel each.
            model: the network; by default the one that the masks were made with, if it is still there.

        Raises `UserError` where no attention is found.
        """
        ready()
        from modhook.plotting.of_layers import heads

        return heads(masks, model)

    def history(self, fit: Fit | xr.Dataset) -> Figure:
        """Draw loss, share of kept weights and gradient norm over the steps of a fit."""
        ready()
        from modhook.plotting.of_fits import history

        return history(fit)

    def curve(self, curve: xr.Dataset) -> Figure:
        """Draw what `fit.curve` returned: score against size, the complement dashed, with the sampler's own threshold."""
        ready()
        from modhook.plotting.of_fits import curve as drawn

        return drawn(curve)

    def parts(self, parts: xr.Dataset | Mapping[str, Masks], *, shared: bool = False, most: int = 30) -> Figure:
        """Draw the parts of several functions as an UpSet plot (Lex et al. 2014): a bar per subset over the functions that it has.

        Args:
            parts: what `modhook.parts` returned, or {function: masks}; of several seeds (`answer.parts`) means and deviations are drawn.
            shared: draw what each subset shares, whatever other functions keep, instead of its exclusive part.
            most: subsets that are drawn, the largest; the note says how many there are.
        """
        ready()
        from modhook.plotting.of_parts import parts as drawn

        return drawn(parts, shared, most)

    def controls(self, compared: xr.Dataset) -> Figure:
        """Draw what `modhook.compared` returned (`answer.compared`): scores at equal size and sizes at an equal score, of each function's
        mask and of each control, means over seeds with intervals."""
        ready()
        from modhook.plotting.of_controls import controls as drawn

        return drawn(compared)

    def overlaps(self, overlaps: xr.Dataset | Mapping[str, Masks]) -> Figure:
        """Draw the IoU of every two functions as a matrix, with that of chance under each number."""
        ready()
        from modhook.plotting.of_parts import overlaps as drawn

        return drawn(overlaps)

    def dendrogram(self, overlaps: xr.Dataset | Mapping[str, Masks]) -> Figure:
        """Draw which functions' masks are alike: average linkage of 1 - IoU. Needs scipy (the extra `dendrogram`).

        Args:
            overlaps: what `modhook.overlaps` returned, or {function: masks}; of at least two functions.

        Raises:
            UserError: no scipy, fewer than two functions, or an IoU that is not defined because two masks keep nothing.
        """
        ready()
        from modhook.plotting.of_parts import dendrogram

        return dendrogram(overlaps)

    def _kind(self, what: Any) -> str:
        from modhook.fit import Fit
        from modhook.masks import Masks

        if isinstance(what, Fit):
            return "history"
        if isinstance(what, Masks) or (
            isinstance(what, Mapping) and what and hasattr(what, "items") and _all_masks(what)
        ):
            return "density"
        if hasattr(what, "data_vars") and hasattr(what, "coords"):
            for kind, names in _KINDS.items():
                if all(n in what.variables for n in names):
                    return kind
            if "step" in what.dims and "loss" in what:
                return "history"
            raise UserError(
                "this dataset is none that modhook.plot knows: it draws those of fit.curve, fit.history, modhook.parts, modhook.overlaps "
                f"and modhook.compared, and this one has {', '.join(map(str, what.data_vars)) or 'no variable'}."
            )
        raise UserError(f"modhook.plot draws Masks, {{name: Masks}}, a Fit, an Answer or a Dataset of them, not {shown(what)}.")


def _drawn_of(what: Any) -> Any:
    """Return what is drawn of an answer, which this room does not know: its masks beside their controls, or their parts."""
    if type(what).__name__ != "Answer" or not hasattr(what, "has_controls"):
        return what
    return what.compared if what.has_controls else what.parts


def _all_masks(what: Mapping[Any, Any]) -> bool:
    from modhook.masks import Masks

    return all(isinstance(m, Masks) for m in cast("Any", what.values()))


plot = Plot()
"""What `modhook.plot` is."""
