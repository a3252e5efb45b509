"""Masks for people: a table of their tensors, as a DataFrame and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhook.values import markup

if TYPE_CHECKING:
    import pandas as pd

    from modhook.masks.masks import Masks

_ROWS = 40
"""Tensors that a notebook shows; the rest is counted."""


def frame(masks: Masks) -> pd.DataFrame:
    """Return one row per tensor; see `Masks.to_dataframe`."""
    import pandas as pd

    rows = [
        {
            "parameter": name,
            "module": masks._groups[name].module if name in masks._groups else name.rpartition(".")[0],
            "kept": kept,
            "total": masks._masks[name].numel(),
            "density": kept / masks._masks[name].numel() if masks._masks[name].numel() else float("nan"),
        }
        for name, kept in masks.kept(per_tensor=True).items()
    ]
    columns = {"parameter": "object", "module": "object", "kept": "int64", "total": "int64", "density": "float64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def page(masks: Masks) -> str:
    """Return what a notebook shows: the whole in a line, and each tensor's density as a bar."""
    return markup.box(headline(masks), tensors(masks))


def headline(masks: Masks) -> str:
    """Return the whole in one line of HTML."""
    return markup.line(
        "Masks",
        f"{masks.kept():,} of {masks.size:,} {masks.counted} kept",
        markup.share(masks.density),
        f"{len(masks)} tensor{'' if len(masks) == 1 else 's'}",
    )


def tensors(masks: Masks) -> str:
    """Return a table in HTML: each tensor's density as a bar."""
    rows = []
    for name, kept in list(masks.kept(per_tensor=True).items())[:_ROWS]:
        size = masks._masks[name].numel()
        density = kept / size if size else float("nan")
        shape = "×".join(map(str, masks._masks[name].shape)) or "scalar"
        rows.append((name, shape, f"{kept:,}", markup.bar(density)))
    left = len(masks) - len(rows)
    note = f"and {left:,} further tensors: masks.to_dataframe() lists all" if left > 0 else ""
    return markup.table(("parameter", "shape", "kept", "share"), rows, note)
