"""The notebook that walks from the cube of add/mul to what it says: written and run by `nox -s reproduction` once there is a cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "add_mul.ipynb"
"""The notebook, beside the page."""
CUBE = "cubes/addmul_fnn.zip"
CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# From a cube to a conclusion: addition and multiplication

One network adds or multiplies two numbers of two digits, as a switch in its input says. It is trained and frozen, and a
mask is learned for
each operation: the weights that it needs. The runs are those of [reproduction.md](reproduction.md), packed into one
file without weights and logits.

Written by `nox -s reproduction`; outputs are those of the cube beside it.""",
    ),
    (
        "code",
        """import matplotlib.pyplot as plt
import numpy as np

import modhook
from modhook.cube import done

PATH = "CUBE"
cube = modhook.open_cube(PATH)
study = cube.attrs["study"]
print(study["train"]["steps"], "steps, and", study["masks"]["steps"], "per mask; beta", study["masks"]["beta"], study["sweep"])""".replace(
            "CUBE", CUBE
        ),
    ),
    ("markdown", "A cube may be unfinished. Which seeds of which network have all their stages?"),
    (
        "code",
        """complete = done(cube).sel(stage=["unmasked", "control", "add", "mul"]).all("stage")
print(complete.to_pandas())
hidden = str(complete["model.hidden"].values[complete.sum("seed").values.argmax()])
seeds = [int(s) for s in complete["seed"].values[complete.sel({"model.hidden": hidden}).values]]
at = {"model.hidden": hidden, "seed": seeds}
print(hidden, seeds)""",
    ),
    (
        "markdown",
        """## What the network does under each mask

A row per mask, a column per kind of problem; `control` is the mask of the whole task. If the operations have weights of
their own, each mask does
its own operation and not the other.""",
    ),
    (
        "code",
        """scores = modhook.tidy(PATH, "scores/accuracy")
scores = scores[(scores["model.hidden"] == hidden) & scores["seed"].isin(seeds)]
table = scores.pivot_table(index="stage", columns="split", values="value", aggfunc="mean", sort=False, observed=True)
(100 * table).round(1)""",
    ),
    ("markdown", "And without the weights of a mask, everything else left as it is:"),
    (
        "code",
        """without = cube["inverse/accuracy"].sel(at).mean("seed")
(100 * without.to_pandas()).round(1)""",
    ),
    (
        "markdown",
        """## Is that more than any mask of this size would show?

`random` keeps as many weights of each tensor, drawn at random. `own_removed` takes out only the weights that one
operation keeps and the other does
not, beside as many at random: what only one operation needs breaks that operation, and more than a random removal does.""",
    ),
    (
        "code",
        """for name in ("random/accuracy", "own_removed/accuracy", "own_removed/random/accuracy"):
    group = name.partition("/")[0]
    if group in cube.children:
        print(name)
        print((100 * cube[name].sel(at).sel(stage=["add", "mul"]).mean("seed").to_pandas()).round(1), "\\n")""",
    ),
    (
        "markdown",
        """## The weights themselves

How much of each matrix do the masks keep, and how much of that is the same weights? Two masks of these sizes have
weights in common by chance, too.""",
    ),
    (
        "code",
        """masks = {stage: modhook.masks_from(PATH, seed=seeds[0], stage=stage, hidden=hidden) for stage in ("control", "add", "mul")}
for stage, mask in masks.items():
    print(stage, f"{mask.density:.3f}", {name: round(float(m.float().mean()), 3) for name, m in mask.items()})
print("IoU of add and mul", round(modhook.iou(masks["add"], masks["mul"]), 3))""",
    ),
    (
        "code",
        """overlap = cube["overlap"].to_dataset().sel(at).sel(stage="add", other="mul").dropna("parameter", how="all", subset=["iou"])
names = [str(n) for n in overlap["parameter"].values]
x = np.arange(len(names))
figure, axes = plt.subplots(figsize=(6, 3))
for shift, (name, label) in enumerate((("iou", "measured"), ("iou_chance", "by chance"))):
    values = overlap[name].transpose("seed", "parameter").values
    axes.bar(x + 0.4 * shift - 0.2, np.nanmean(values, axis=0), 0.38, label=label)
axes.set_xticks(x, names)
axes.set_ylabel("IoU of add and mul")
axes.set_title(f"hidden {hidden}, mean of {len(seeds)} seed{'s' if len(seeds) != 1 else ''}")
axes.legend()
plt.show()""",
    ),
    ("markdown", "## What it says"),
    (
        "code",
        """def mean(name, **where):
    return float(cube[name].sel(at).sel(where).mean())


for own, other in (("add", "mul"), ("mul", "add")):
    print(
        f"{own}: {mean('scores/accuracy', stage=own, split=own):.1%} under its own mask, "
        f"{mean('scores/accuracy', stage=other, split=own):.1%} under that "
        f"of {other}, {mean('inverse/accuracy', stage=own, split=own):.1%} without the weights of its own."
    )
shared, chance = mean("overlap/iou_total", stage="add", other="mul"), mean("overlap/iou_chance_total", stage="add", other="mul")
print(f"The two masks share {shared:.2f} of the weights that either keeps; random masks of their sizes share {chance:.2f}.")
print(f"Seeds: {len(seeds)}. One seed has no spread, and two hardly: intervals and verdicts are in reproduction.md.")""",
    ),
)
"""Kind and source of each cell, in order."""


def write(path: Path) -> None:
    """Run the cells in the notebook's folder, and write them with what they showed."""
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, (kind, source) in enumerate(CELLS):
        cell: Any = nbformat.v4.new_markdown_cell(source) if kind == "markdown" else nbformat.v4.new_code_cell(source)
        cell["id"] = f"cell{number}"
        made.cells.append(cell)
    NotebookClient(made, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in made.cells:
        cell["metadata"] = {}
    nbformat.write(made, path)
