"""A fit for people: what was found, how it went, and a small curve of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from modhook.errors import printable
from modhook.masks.show import headline, tensors
from modhook.values import markup

if TYPE_CHECKING:
    from modhook.fit.result import Fit

_CURVES = (("loss", "loss"), ("density", "weights kept"), ("gradient_norm", "gradient norm"))


_STOPPED = {
    "settled": "the mask had settled",
    "callback": "the callback said so",
    "interrupted": "by Ctrl-C",
    "batches": "the batches ended",
}


def text(fit: Fit) -> str:
    """Return the fit on one line."""
    loss, told = _last(fit, "loss"), _more(fit)
    facts = [
        repr(fit.masks),
        f"{fit.steps} step{'' if fit.steps == 1 else 's'}",
        *([f"loss {loss:.4g}"] if math.isfinite(loss) else []),
        *(f"{name}: {'; '.join(value for same, value in told if same == name)}" for name in dict.fromkeys(n for n, _ in told)),
    ]
    return f"Fit({', '.join(facts)})"


def page(fit: Fit) -> str:
    """Return what a notebook shows."""
    rows: list[tuple[str, object]] = [("steps", f"{fit.steps:,}")]
    loss = _last(fit, "loss")
    if math.isfinite(loss):
        rows.append(("loss at the last step", f"{loss:.4g}"))
    if fit.threshold is not None and fit.threshold != fit.masks:
        rows.append(
            ("the sampler's own masks", f"{fit.threshold.kept():,} weights, {markup.share(fit.threshold.density)}")
        )
    if fit.fixed is not None:
        rows.append(("given and not learned", f"{len(fit.fixed)} tensors, {fit.fixed.kept():,} weights kept"))
    if fit.weights:
        rows.append(("learned with the masks", f"weights of {len(fit.weights)} tensors"))
    if fit.off is not None:
        rows.append(("a weight that is not kept", "becomes what fit.off holds"))
    if route := fit.route.get("route"):
        rows.append(("run by", f"{route} ({fit.route.get('reason', '')})" if fit.route.get("reason") else route))
    rows += _more(fit)
    curves = "".join(markup.curve(title, _values(fit, name)) for name, title in _CURVES)
    return markup.box(headline(fit.masks), markup.table(("fit", ""), rows), curves, tensors(fit.masks))


def _more(fit: Fit) -> list[tuple[str, str]]:
    """Return why a fit ended early, if it did, and what to know before its masks are trusted. A file may hold any text."""
    ended = [("stopped", _STOPPED.get(fit.stopped, fit.stopped))] if fit.stopped else []
    warned = [("before you trust it", caution.rstrip(".")) for caution in fit.cautions]
    return [(name, printable(value, line=True)) for name, value in (*ended, *warned)]


def _values(fit: Fit, name: str) -> list[float]:
    if name not in fit.history or fit.history[name].ndim != 1:
        return []
    return [float(v) for v in np.asarray(fit.history[name].values, dtype=float)]


def _last(fit: Fit, name: str) -> float:
    known = [v for v in _values(fit, name) if math.isfinite(v)]
    return known[-1] if known else math.nan
