"""A whole network in one picture: the share of weights that masks keep, layer by layer, in each part or in each head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from modhook.errors import UserError
from modhook.masks import Masks
from modhook.plotting.style import Shown, below, share_maps, styled
from modhook.values.arguments import instance, shown


def layers(given: Any, model: Any = None) -> Shown:
    """Return the figure; see `Plot.layers`. Raises `UserError`, `MaskError`."""
    tables = {name: masks.by(("layer", "part"), model=model) for name, masks in _functions(given).items()}
    grids = {n: t.pivot_table(index="layer", columns="part", values="density", sort=False, dropna=False) for n, t in tables.items()}
    weights = {int(t["total"].sum()) for t in tables.values()}
    note = f"columns: parts of a layer; {', '.join(f'{w:,}' for w in sorted(weights))} masked weights"
    return _drawn(grids, "Weights kept by layer", note)


def heads(given: Any, model: Any = None) -> Shown:
    """Return the figure; see `Plot.heads`. Raises `UserError`, `MaskError`."""
    tables = {name: masks.heads(model=model) for name, masks in _functions(given).items()}
    grids = {n: t.pivot_table(index="module", columns="head", values="density", sort=False) for n, t in tables.items()}
    return _drawn(grids, "Weights kept by head", "columns: heads, their queries, keys, values and output")


def _functions(given: Any) -> Mapping[str, Masks]:
    if isinstance(given, Masks):
        return {"": given}
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"give masks, or {{function: masks}}, not {shown(given)}.")
    for name, masks in given.items():
        instance(f"masks[{name!r}]", masks, Masks, "a modhook.Masks")
    return {str(name): masks for name, masks in given.items()}


def _drawn(grids: Mapping[str, pd.DataFrame], title: str, note: str) -> Shown:
    """Draw a panel per function over the rows and columns of all."""
    rows = list(dict.fromkeys(r for g in grids.values() for r in g.index))
    columns = list(dict.fromkeys(c for g in grids.values() for c in g.columns))
    shares = {n: g.reindex(index=rows, columns=columns).to_numpy(dtype=float) for n, g in grids.items()}
    with styled(fresh=True):
        figure, common = share_maps(shares, [str(r) for r in rows], [str(c) for c in columns], title)
        gaps = "grey: nothing to mask" if any(np.isnan(s).any() for s in shares.values()) else ""
        below(figure, "; ".join(filter(None, [common, note, gaps])))
    return figure
