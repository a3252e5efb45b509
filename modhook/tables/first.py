"""Which tables say what a study found, and the words that they need."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

from modhook.tables.collect import tables
from modhook.tables.table import Table

_FIRST = ("scores", "overlap/iou_total")
"""Groups and variables: what the network does under each mask, and what the masks have in common."""
IID = "iid"
WORDS = {IID: "iid: items of the whole task, drawn as those of training are (independently and identically distributed)."}
"""Names of splits that tasks share and that say nothing by themselves."""


def first_tables(cube: xr.DataTree) -> tuple[list[Table], int]:
    """Return the tables that matter first, scores before all others, and how many there are besides.

    A cube that has none of these has all its tables first.
    """
    every = tables(cube)
    chosen = [t for t in every if t.group in _FIRST or set(t.variables) & set(_FIRST)]
    return (chosen, len(every) - len(chosen)) if chosen else (every, 0)


def words(found: Iterable[Table]) -> list[str]:
    """Return a sentence for each name in these tables that needs one."""
    names = {name for table in found for name in (*table.columns, *table.over, *(label for label, _ in table.lines))}
    return [sentence for name, sentence in WORDS.items() if name in names]
