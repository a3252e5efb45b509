"""A fit for people: what was found, how it went, and a small curve of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook.masks.show import headline, tensors
from modhook.values import markup

if TYPE_CHECKING:
    from modhook.fit.result import Fit

_CURVES = (("loss", "loss"), ("density", "share kept"), ("gradient_norm", "gradient norm"))


def text(fit: Fit) -> str:
    """Return the fit on one line."""
    loss = _last(fit, "loss")
    facts = [
        repr(fit.masks),
        f"{fit.steps} step{'' if fit.steps == 1 else 's'}",
        *([f"loss {loss:.4g}"] if math.isfinite(loss) else []),
        *(f"{name}: {value}" for name, value in _more(fit)),
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
    if route := fit.route.get("route"):
        rows.append(("run by", f"{route} ({fit.route.get('reason', '')})" if fit.route.get("reason") else route))
    rows += _more(fit)
    curves = "".join(markup.curve(title, _values(fit, name)) for name, title in _CURVES)
    return markup.box(headline(fit.masks), markup.table(("fit", ""), rows), curves, tensors(fit.masks))


def _more(fit: Fit) -> list[tuple[str, str]]:
    """Return why a fit ended early, and what it warned of, where it says so."""
    found: list[tuple[str, str]] = []
    for name, label in (("stopped", "stopped"), ("warnings", "warning")):
        value: Any = getattr(fit, name, None)
        several = value if isinstance(value, tuple | list) else (value,) if value else ()
        found += [(label, "before its last step" if one is True else str(one)) for one in several]
    return found


def _values(fit: Fit, name: str) -> list[float]:
    if name not in fit.history or fit.history[name].ndim != 1:
        return []
    return [float(v) for v in np.asarray(fit.history[name].values, dtype=float)]


def _last(fit: Fit, name: str) -> float:
    known = [v for v in _values(fit, name) if math.isfinite(v)]
    return known[-1] if known else math.nan
