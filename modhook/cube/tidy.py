"""A cube's variables as tidy tables: one value per row, with the labels that it stands at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from modhook.cube.cube import Cube
from modhook.cube.place import Where
from modhook.cube.reading import done, open_cube
from modhook.errors import CubeError, UserError, listing, near_miss
from modhook.values.arguments import shown

if TYPE_CHECKING:
    import pandas as pd

_ALWAYS = ("runs", "timing")
"""Groups that may be read of every run, finished or not."""


def tidy(cube: Where | Cube | xr.DataTree, *names: str) -> pd.DataFrame:
    """Return variables of a cube as one tidy DataFrame: a column per dimension, then `metric` and `value`.

    For `"scores/accuracy"` the columns are seed, one per sweep key, stage, split, metric, value; for `"overlap/iou_total"` other stands in
    the place of split. Only what is finished is in it: stages that are not done, runs that have nothing yet, and stages without any
    value (of an analysis that is still to come) are left out; single values of the others may be NaN.

    Args:
        cube: what `open_cube` returned, or a path or URL.
        names: the variables, `"group/name"`. Of several, columns that one of them does not have are empty there. `metric` is the
            variable's name without its group, or with it where two would be called the same.

    Raises:
        CubeError: no name, or an unknown one; the message lists the variables. Whatever `open_cube` raises.
    """
    import pandas as pd

    tree = cube if isinstance(cube, xr.DataTree) else open_cube(cube.path if isinstance(cube, Cube) else cube)
    known = _variables(tree)
    if not names:
        raise CubeError(f"name a variable of the cube, such as {_example(known)}; it has: {', '.join(known)}.")
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"the name of a variable must be a text such as {_example(known)}, not {shown(name)}.")
        if name not in known:
            inside = [n for n in known if n.startswith(f"{name.strip('/')}/")]
            if inside:
                raise CubeError(f"{name!r} is a group of the cube; name one of its variables: {listing(inside, 60)}.")
            raise CubeError(f"the cube has no variable {name!r}{near_miss(name, known)}; it has: {listing(known, 60)}.")
    short = [name.rpartition("/")[2] for name in names]
    frames = [
        _frame(tree, known[name], name.partition("/")[0], name if short.count(last) > 1 else last)
        for name, last in zip(names, short, strict=True)
    ]
    if len(frames) == 1:
        return frames[0]
    dims = dict.fromkeys(c for f in frames for c in f.columns if c not in ("metric", "value"))
    return pd.concat(frames, ignore_index=True)[[*dims, "metric", "value"]]


def _variables(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Return every variable of a cube, by "group/name"."""
    return {f"{node.path.strip('/')}/{n}".strip("/"): v for node in tree.subtree for n, v in node.data_vars.items()}


def _example(known: dict[str, xr.DataArray]) -> str:
    return repr("scores/accuracy" if "scores/accuracy" in known or not known else next(iter(known)))


def _frame(tree: xr.DataTree, values: xr.DataArray, group: str, metric: str) -> pd.DataFrame:
    """Return one variable, of what is finished."""
    import pandas as pd

    values = values.load()
    there = xr.ones_like(values, dtype=bool)
    if "seed" in values.dims and group not in _ALWAYS:
        finished = done(tree).load()  # (seed, sweep..., stage)
        # A run has something as soon as one of its stages is done.
        staged = "stage" in values.dims
        finished = finished.reindex(stage=values["stage"], fill_value=False) if staged else finished.any("stage")
        there = there & finished.drop_vars([c for c in finished.coords if c not in finished.dims])
        if values.dtype.kind == "f":
            own = [d for d in values.dims if d not in ("stage", *tree.attrs.get("modhook_run_dims", ("seed",)))]
            there = there & values.notnull().any(own)  # an analysis that is still to come
        there = there.transpose(*values.dims)
    labels = [values[d].values if d in values.coords else np.arange(values.sizes[d]) for d in values.dims]
    places = np.nonzero(there.values) if values.ndim else ()
    columns: dict[str, Any] = {str(d): label[at] for d, label, at in zip(values.dims, labels, places, strict=True)}
    found = values.values[places] if values.ndim else np.atleast_1d(values.values)
    return pd.DataFrame({**columns, "metric": np.full(len(found), metric, dtype=object), "value": found})
