"""Which tables a run ends with, and what is said of the names in them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from modhook.tables import first_tables, tables, words


def cube(**groups: dict[str, tuple[tuple[str, ...], str]]) -> xr.DataTree:
    """A cube of one seed and two stages with these variables, {group: {name: (dimensions, how tables show it)}}."""
    labels = {"stage": ["unmasked", "add"], "other": ["unmasked", "add"], "split": ["iid", "add"]}
    made = {}
    for group, variables in groups.items():
        arrays = {
            name: xr.DataArray(np.full((1, *([2] * len(dims))), 0.5), dims=("seed", *dims), attrs={"table": table} if table else {})
            for name, (dims, table) in variables.items()
        }
        dims = {d for a in arrays.values() for d in a.dims} - {"seed"}
        made[group] = xr.Dataset(arrays, coords={"seed": [1], **{d: labels[str(d)] for d in dims}})
    return xr.DataTree.from_dict(made)


def test_scores_come_first_and_the_rest_is_counted() -> None:
    """Scores of every metric, then what the masks have in common; everything else is counted, and found by `modhook show`."""
    pair, scored = ("stage", "other"), ("stage", "split")
    found = cube(
        inverse={"accuracy": (scored, "percent")},
        overlap={"iou_total": (pair, "number"), "iou_chance_total": (pair, "number"), "density": (pair[:1], "number"), "x": (pair, "")},
        scores={"loss": (scored, "number"), "accuracy": (scored, "percent")},
    )
    chosen, more = first_tables(found)
    assert [t.title for t in chosen] == ["scores/loss", "scores/accuracy (%)", "overlap/iou_total: IoU of two masks"]
    assert more == 3 == len(tables(found)) - 3


def test_a_cube_with_neither_shows_all_it_has() -> None:
    """Nothing is left out where nothing comes first."""
    found = cube(half_mask={"accuracy": (("stage", "split"), "percent")})
    chosen, more = first_tables(found)
    assert ([t.title for t in chosen], more) == (["half_mask/accuracy (%)"], 0)


def test_iid_is_explained_where_it_stands() -> None:
    """The sentence comes with tables that have the name, and not with others."""
    scored = cube(scores={"accuracy": (("stage", "split"), "percent")})
    (sentence,) = words(tables(scored))
    assert sentence.startswith("iid: items of the whole task")
    assert words(tables(cube(overlap={"iou_total": (("stage", "other"), "number")}))) == []
