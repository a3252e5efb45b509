"""What trackers are told of a run as a whole: its settings when it begins, its scores when it ends."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import attrs

from modhook.cube import Cube
from modhook.study import Study, flat, resolved

_NO_SETTING = ("study.description", "study.seeds", "run.")
"""What changes no number of a run."""


def settings_of(study: Study, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as what every log can hold: numbers, bools and texts; those that are off are left out.

    Args:
        study: the study at the run's sweep point.
        labels: the run's coordinates, which come first.
    """
    table = dict(flat(resolved(attrs.evolve(study, sweep={}, grid=()))))
    known = {k: v for k, v in table.items() if v is not None and not k.startswith(_NO_SETTING)}
    return {**labels, **{k: _plain(v) for k, v in known.items() if k not in labels}}


def scores_of(cube: Cube, labels: Mapping[str, Any], metrics: Iterable[str], done: Sequence[str]) -> dict[str, float]:
    """Return the scores of all stages of a run, `{"STAGE/METRIC/SPLIT": value}`; NaN for a stage that is not `done`."""
    found: dict[str, float] = {}
    for metric in metrics:
        known = cube.labels(f"scores/{metric}")
        for stage in map(str, known["stage"]):
            values = cube.read(f"scores/{metric}", labels, stage=stage).tolist() if stage in done else repeat(math.nan)
            found |= {f"{stage}/{metric}/{split}": value for split, value in zip(known["split"], values, strict=False)}
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)
