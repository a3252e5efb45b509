"""What a cube holds of the controls that learn masks: the groups below `controls`, over stages of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from modhook.plugin.interfaces import Task
from modhook.plugin.variables import Variable
from modhook.study import ControlStage

GROUP = "controls"
SCORES = {
    "scores": "under its mask, on its own network (nonsense: with its own labels, on every split)",
    "unmasked": "of its own network without a mask",
    "equal_size": "under the cut of its ranking that keeps as many weights as the stage's mask",
}
"""Groups of scores below `controls`, and what each is."""


def control_plan(
    task: Task, controls: Sequence[ControlStage], known: Sequence[Variable], history: Mapping[str, Sequence[Any]]
) -> tuple[list[Variable], dict[str, dict[str, list[Any]]]]:
    """Return the variables of the controls' stages, and the labels of their groups.

    `known` are the study's own variables, and `history` the labels of that group: a control has the same history.
    """
    own = {"stage": [control.label for control in controls]}

    def fixed(name: str, doc: str, values: Sequence[str]) -> Variable:
        return Variable(f"{GROUP}/{name}", ("stage",), "str", doc, per_run=False, value=tuple(values))

    def share(name: str, doc: str) -> Variable:
        return Variable(f"{GROUP}/{name}", ("stage",), "float64", doc, attrs={"table": "number"})

    variables = [
        fixed("kind", "which control it is", [control.kind for control in controls]),
        fixed("of", "of which stage it is the control", [control.of for control in controls]),
        share("density", "share of the masked weights that its mask keeps"),
        share("of_density", "share of the masked weights that the mask of the stage keeps"),
        share(
            "equal_score",
            "share of the masked weights that the smallest cut of its ranking keeps which scores at least what the stage's mask "
            "scores, on the function's split; NaN where no cut does",
        ),
    ]
    for group, doc in SCORES.items():
        tables = {m: {"table": task.table(m)} if group == "scores" else {} for m in task.metrics}
        variables += [
            Variable(f"{GROUP}/{group}/{m}", ("stage", "split"), "float64", f"mean {m} {doc}", attrs=table)
            for m, table in tables.items()
        ]
    recorded = [v for v in known if v.group == "history" and v.dims[:1] == ("stage",)]
    variables += [attrs.evolve(v, name=f"{GROUP}/{v.name}") for v in recorded]
    labels: dict[str, dict[str, list[Any]]] = {GROUP: own}
    labels |= {f"{GROUP}/{group}": {**own, "split": list(task.splits)} for group in SCORES}
    dims = {d for v in recorded for d in v.dims}
    labels[f"{GROUP}/history"] = {**{d: list(x) for d, x in history.items() if d in dims}, **own}
    return variables, labels
