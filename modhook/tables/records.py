"""The tables' numbers for machines: one line per mean, with full precision."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator
from typing import Any

import xarray as xr

from modhook.tables.collect import points, table_names, tables, tabulated
from modhook.tables.table import summary


def as_csv(cube: xr.DataTree, name: str | None = None) -> str:
    """Return CSV with a header: variable, one column per sweep key and own dimension, mean, std, n, unit.

    Numbers are in the variable's own unit: a score is a share from 0 to 1, whatever a table for people shows. `n` counts the
    seeds that have a value; without one, mean is empty, and std without two. A dimension that a variable does not have is
    empty. `name` and errors as in `tables`.
    """
    tables(cube, name)  # raises for an unknown name
    found = [r for r in _records(cube) if name in (None, r["variable"], r["variable"].rpartition("/")[0])]
    numbers = ["mean", "std", "n", "unit"]
    dims = dict.fromkeys(key for r in found for key in r if key not in ("variable", *numbers))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["variable", *dims, *numbers], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def _records(cube: xr.DataTree) -> Iterator[dict[str, Any]]:
    """Yield one record per tabulated number, in the order of the tables."""
    order = table_names(cube)
    chosen = {f"{str(node.path).strip('/')}/{n}": v for node in cube.subtree for n, v in tabulated(node).items()}
    for path in sorted(chosen, key=order.index):
        for point in points(chosen[path]):
            values = chosen[path].sel(point)
            mean, deviation, count = summary(values)
            own = [str(d) for d in values.dims[1:]]
            labels = itertools.product(*(values[d].values.tolist() for d in own))
            for at, m, d, n in zip(labels, mean.flat, deviation.flat, count.flat, strict=True):
                yield {
                    "variable": path,
                    **point,
                    **dict(zip(own, at, strict=True)),
                    "mean": "" if math.isnan(m) else repr(float(m)),
                    "std": "" if math.isnan(d) else repr(float(d)),
                    "n": int(n),
                    "unit": values.attrs.get("units", "1"),
                }
