"""What tables call a variable: the words of the report and the pages. Names in the cube, and for `--table`, stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from modhook.tables.table import in_unit

_WORDS: Mapping[str, str] = {
    "overlap/density": "weights kept",
    "overlap/remaining_total": "kept of the control's",
    "overlap/shared_total": "shared of its own",
    "overlap/shared_chance_total": "shared by chance",
    "overlap/iou_total": "IoU of two masks",
    "overlap/iou_chance_total": "IoU of random masks of the same sizes",
    "overlap/iou_ratio_total": "IoU over that of random masks",
    "controls/density": "weights kept",
    "controls/of_density": "weights kept by the stage's mask",
    "controls/equal_score": "weights kept for an equal score",
    "history/steps": "steps done",
    "controls/history/steps": "steps done",
    "stability/iou_total": "IoU of two seeds",
    "stability/chance_total": "IoU of random masks",
    "stability/ratio_total": "IoU over that of random masks",
    "seed_ceiling/iou": "IoU of masks of two mask seeds",
    "seed_ceiling/chance": "IoU of random masks of the same sizes",
    "size_curve/cpr": "area under the score (CPR)",
    "size_curve/cmd": "area between score and 1 (CMD)",
    "class_removal/target_drop": "lost by the removed class, of its accuracy",
    "class_removal/other_drop": "lost by the other that loses most, of its accuracy",
    "class_removal/other_share": "other over removed",
    "class_removal/target_points": "accuracy lost by the removed class",
    "class_removal/other_points": "accuracy lost by the other that loses most",
}
"""Words of the core's groups and of first-party analyses, so that cubes of any version have them; another variable has its name."""
_SHARES = (
    *("overlap/density", "overlap/remaining_total", "overlap/shared_total", "overlap/shared_chance_total"),
    *("controls/density", "controls/of_density", "controls/equal_score"),
    *("class_removal/target_drop", "class_removal/other_drop"),
)
"""Shares of weights and of scores that are stored from 0 to 1 and shown in percent, as everywhere else."""


def named(path: str, values: xr.DataArray) -> xr.DataArray:
    """Return a tabulated variable as it is shown: shares in percent."""
    return values.assign_attrs(table="percent") if path in _SHARES else values


def head(path: str, values: xr.DataArray) -> str:
    """Return what a column says of its variable (`group/name`): words, or the variable's own name, and the unit."""
    return _WORDS.get(path, path.rpartition("/")[2]) + in_unit(values)


def title(path: str, rest: str, values: xr.DataArray) -> str:
    """Return what stands above a variable's own table: its path, where in the cube (`rest`), its words, and the unit."""
    words = f": {_WORDS[path]}" if path in _WORDS else ""
    return f"{path}{rest}{words}{in_unit(values)}"
