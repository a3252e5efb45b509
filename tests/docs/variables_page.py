"""The page docs/variables.md, made from the declarations that the cubes are laid out by: `python tests/docs/variables_page.py --write`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

from modhook.cube import RUN_VARIABLES, layout_variables
from modhook.errors import UserError
from modhook.plugin.interfaces import Task
from modhook.plugin.manager import KINDS, Plugins, plugins
from modhook.plugin.variables import Variable
from modhook.run.layout import plan, prepare
from modhook.study import restore

PAGE = Path(__file__).parents[2] / "docs" / "variables.md"

# A study that has every variable that does not come from an analysis: it trains, masks and validates on the way.
EVERYTHING = {
    "study": {"name": "page"},
    "task": {"name": "addmul"},
    "model": {"name": "fnn", "hidden": [4]},
    "train": {"steps": 4, "validate_every": 2},
    "masks": {"steps": 4, "validate_every": 2, "stop": "settled"},
    "controls": {"shuffled": True},
}
WORDS = {
    "scores": "Scores of the network before masking and under every stage's mask.",
    "runs": "How far every run is. `runs/<analysis>` says so for each analysis of the study.",
    "timing": "What depends on the clock; everything else agrees bit for bit between two runs of a study.",
    "history": "What was recorded while the network and the masks were trained.",
    "controls": "Controls that learn masks ([controls.md](controls.md)). `stage` are their own stages, `add (shuffled)`, in all groups "
    "below `controls`; in `runs`, `timing` and `masks` they stand behind the study's.",
    "masks": "Masks, logits and weights, one group `masks/<layout>` per distinct set of parameter shapes; "
    "`modhook.masks_from` reads them. Weights have a dimension `stage` where the protocol changes them from stage to stage.",
}
HEAD = """# Variables of a cube

<!-- Written by `python tests/docs/variables_page.py --write` from the plugins' declarations; do not edit. -->

Before its own dimensions every variable has the run's: `seed`, then one for each key of the study's `[sweep]`. Exceptions are marked
*same for all runs*. `stage` are the labels of the study's stages, `split` those of the task's test sets, `parameter` names of the
network's parameters. Floats that were never written are NaN; whole numbers are valid only where `runs/status` says *done*. A task with
other metrics than `accuracy` has a variable of each metric's name wherever `accuracy` stands here.
"""


def page() -> str:
    """Return the page."""
    installed = plugins()
    every = [e for kind in KINDS for e in installed.entries(kind)]
    own = Plugins([e for e in every if e.distribution == "modhook"], ())
    tasks: dict[str, Task] = {}
    for entry in own.entries("tasks"):
        cls = entry.load()
        if all(field.default is not attrs.NOTHING for field in attrs.fields(cls.Options)):  # others need the user's files
            tasks[entry.spec.name] = cls(cls.Options())
    parts = [HEAD, "## In every cube\n"]
    study = restore(EVERYTHING, plugins=own)
    made = plan(prepare(study, own, [tasks["addmul"]]), [1], {})
    # A network with an integer buffer has all variables of a layout.
    state = {"weight": ((2,), "float32"), "seen": ((), "int64")}
    layout = layout_variables("layout0", state, ["weight"], ["control"], study.masks.logits_dtype)
    core = [*(v for v in made.variables if not v.name.startswith("masks/")), *RUN_VARIABLES, *layout.variables]
    for group, words in WORDS.items():
        here = [v for v in core if v.group.split("/")[0] == group]
        parts.append(f"### `{group}`\n\n{words}\n\n{_table(here)}")
    parts.append("## From the analyses\n")
    analyses = [_analysis(e.spec.name, e.spec.summary, e.load(), tasks) for e in own.entries("analyses")]
    return "\n".join([*parts, *analyses])


def _analysis(name: str, summary: str, cls: type, tasks: dict[str, Task]) -> str:
    """Return an analysis' part: what it declares for the tasks that it is for."""
    found: dict[str, Variable] = {}
    fitting = []
    for task_name, task in tasks.items():
        try:
            declared = cls().variables(task)
        except UserError:
            continue
        fitting.append(task_name)
        for variable in declared:
            found.setdefault(variable.name, variable)
    names = ", ".join(f"`{t}`" for t in fitting)
    limits = "" if len(fitting) == len(tasks) else f" For the task{'s' if len(fitting) > 1 else ''} {names}."
    return f"### `{name}`\n\n{summary}.{limits}\n\n{_table(found.values())}"


def _table(variables: Iterable[Variable]) -> str:
    rows = ["| variable | dimensions | type | meaning |", "|---|---|---|---|"]
    for v in variables:
        name = v.name.replace("layout0", "<layout>")
        dims = ", ".join(v.dims) or "-"
        unit = "" if v.units == "1" else f" [{v.units}]"
        shared = "" if v.per_run else "; *same for all runs*"
        doc = v.doc.rstrip(".").replace("|", "\\|")
        rows.append(f"| `{name}` | {dims} | {v.dtype} | {doc}{unit}{shared} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        print(f"{PAGE} is written")
    else:
        print(page())
