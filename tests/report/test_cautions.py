"""Each caution appears where it should, with its place, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhook.cube import Cube, Plan, create, layout_variables, open_cube, write_masks
from modhook.plugin.variables import Variable
from modhook.report.cautions import Caution, cautions
from modhook.report.facts import Facts

#            iid  add  mul
GOOD = [
    [0.95, 0.95, 0.95],  # unmasked
    [0.90, 0.90, 0.90],  # control
    [0.50, 0.92, 0.05],  # add
    [0.45, 0.02, 0.88],  # mul
]
RUN = {"seed": 1, "model.kind": "a"}


def of(cube: Cube) -> list[Caution]:
    """The cautions of a cube."""
    with open_cube(cube.path) as tree:
        return cautions(Facts(tree, cube.path))


def masked(path: Path, logits: dict[str, float]) -> Cube:
    """A cube whose masks over ten weights all have one logit per stage."""
    layout = layout_variables("layout0", {"w": ((10,), "float32")}, ["w"], ["control", "add", "mul"])
    scores = Variable("scores/accuracy", ("stage", "split"), "float64", "a", attrs={"table": "percent"})
    labels: dict[str, Any] = {
        "scores": {"stage": ["unmasked", "control", "add", "mul"], "split": ["iid", "add", "mul"]}
    }
    cube = create(path, Plan({}, {"seed": [1]}, (scores, *layout.variables), {**labels, **layout.labels}, layout.sizes))
    for stage, row in zip(("unmasked", "control", "add", "mul"), GOOD, strict=True):
        if stage in logits:
            write_masks(cube, "layout0", {"seed": 1}, stage, {"w": torch.full((10,), logits[stage])})
        cube.write("scores/accuracy", np.array(row), {"seed": 1}, stage=stage)
        cube.set_status({"seed": 1}, stage, "done")
    return cube


def test_nothing_to_say_about_a_good_cube(make: Callable[..., Cube], tmp_path: Path) -> None:
    """Finished runs with sound scores give no caution."""
    assert of(make(tmp_path / "c.zarr", [GOOD])) == []


def test_scores_that_are_no_numbers(make: Callable[..., Cube], tmp_path: Path) -> None:
    """A finished stage without any finite score is a failure; one that has a split left out is none."""
    cube = make(tmp_path / "a.zarr", [GOOD])
    cube.write("scores/accuracy", np.array([0.5, 0.92, np.nan]), RUN, stage="add")
    assert of(cube) == []
    cube.write("scores/accuracy", np.full(3, np.nan), RUN, stage="add")
    (one,) = of(cube)
    assert (one.level, one.title) == ("failure", "1 score of finished stages is not finite")
    assert one.details == ("seed 1, model.kind = a, add: accuracy",)


def test_failed_stage(make: Callable[..., Cube], tmp_path: Path) -> None:
    """A failed stage is a failure with its run and its reason, and comes first."""
    cube = make(tmp_path / "c.zarr", [GOOD])
    cube.set_status(RUN, "mul", "failed", reason="the loss is not finite")
    first, second = of(cube)
    assert (first.level, first.title) == ("failure", "1 stage failed")
    assert first.details == ("seed 1, model.kind = a, mul: the loss is not finite",)
    assert second.title == "1 of 1 runs is not finished"


@pytest.mark.parametrize(
    ("train", "add", "expected"),
    [
        ([2.3, 0.1], [0.2, 0.3], ()),  # a mask's loss may rise: fewer weights
        ([2.3, 2.4], [0.2, 0.3], ("seed 1, model.kind = a, unmasked: the loss went from 2.3 to 2.4",)),
        (
            [2.3, 0.1],
            [0.2, 2.5],
            ("seed 1, model.kind = a, add: the loss ends at 2.5, above the untrained network's 2.3",),
        ),
    ],
)
def test_diverged(
    train: list[float], add: list[float], expected: tuple[str, ...], make: Callable[..., Cube], tmp_path: Path
) -> None:
    """A loss that ends above the untrained network's is a failure; one that only rises is none."""
    cube = make(tmp_path / "c.zarr", [GOOD])
    cube.write("history/train_loss", np.array(train), RUN)
    cube.write("history/loss", np.array(add), RUN, stage="add")
    assert [c.details for c in of(cube)] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"beta_start": 0.003, "cut": {"within": 0.01}}, False),
        ({"beta_start": None, "cut": {"within": 0.01}}, True),
        ({"beta_start": 0.003, "cut": None}, True),
    ],
)
def test_a_pull_that_rises_is_no_divergence_of_masks_that_are_cut(
    masks: dict[str, Any], said: bool, make: Callable[..., Cube], tmp_path: Path
) -> None:
    """Where the last samples keep nothing by design and the masks are cut, the samples' loss is no failure; elsewhere it is."""
    cube = make(tmp_path / "c.zarr", [GOOD])
    cube.write("history/train_loss", np.array([2.3, 0.1]), RUN)
    cube.write("history/loss", np.array([0.2, 2.5]), RUN, stage="add")
    with open_cube(cube.path) as tree:
        tree.attrs["study"] = {**tree.attrs.get("study", {}), "masks": masks}
        assert any("diverged" in c.title for c in cautions(Facts(tree, cube.path))) == said


def test_missing_seeds(make: Callable[..., Cube], tmp_path: Path) -> None:
    """Seeds without all stages are named for every sweep point."""
    cube = make(tmp_path / "c.zarr", [GOOD, GOOD, GOOD], None, ("a", "b"))
    cube.set_status({"seed": 2, "model.kind": "b"}, "mul", "pending")
    (caution,) = of(cube)
    assert (caution.title, caution.details) == ("1 of 6 runs is not finished", ("seed 2 at model.kind = b",))


def test_control_far_below_the_network(make: Callable[..., Cube], tmp_path: Path) -> None:
    """More than ten points lost under the control are said, per split; fewer are not."""
    rows = [[0.95, 0.95, 0.95], [0.86, 0.80, 0.86], *GOOD[2:]]
    found = [c for c in of(make(tmp_path / "c.zarr", [rows])) if "unmasked network" in c.title]
    assert [c.details for c in found] == [
        ("add: 95.0\N{NO-BREAK SPACE}% unmasked, 80.0\N{NO-BREAK SPACE}% under the control at model.kind = a",)
    ]


def test_stage_far_from_the_control(make: Callable[..., Cube], tmp_path: Path) -> None:
    """A function that does much worse, or much better, under its own mask than under the control is said."""
    rows = [GOOD[0], [0.90, 0.90, 0.86], [0.5, 0.70, 0.05], [0.45, 0.02, 0.99]]
    (caution,) = of(make(tmp_path / "c.zarr", [rows]))
    assert [d.split(":")[0] for d in caution.details] == ["add", "mul"]
    assert "70.0\N{NO-BREAK SPACE}% under its own mask, 90.0\N{NO-BREAK SPACE}% under the control" in caution.details[0]


def test_weak_network(make: Callable[..., Cube], tmp_path: Path) -> None:
    """A network that gets less than half right before any masking is said."""
    rows = np.full((1, 4, 3), 0.3)
    (caution,) = of(make(tmp_path / "c.zarr", rows))
    assert caution.details == ("30.0\N{NO-BREAK SPACE}% on iid before any masking at model.kind = a",)


def test_masks_that_kept_all_or_nothing(tmp_path: Path) -> None:
    """Masks without a kept or without a removed weight are named; one that is not done is not counted as empty."""
    cube = masked(tmp_path / "c.zarr", {"control": 1.0, "add": -1.0, "mul": -1.0})
    nothing, everything = of(cube)
    assert (nothing.title, nothing.details) == ("2 masks kept nothing", ("seed 1, add", "seed 1, mul"))
    assert (everything.title, everything.details) == ("1 mask kept everything", ("seed 1, control",))
    cube.set_status({"seed": 1}, "mul", "pending")
    assert [c.details for c in of(cube) if "nothing" in c.title] == [("seed 1, add",)]


def test_what_the_fits_said(make: Callable[..., Cube], tmp_path: Path) -> None:
    """Each rule is one caution; a sentence of one mask has its place, one that several masks share stands once, with their number."""
    cube = make(tmp_path / "c.zarr", [GOOD])
    cube.add_variables([Variable("history/trust", ("stage",), "str", "said")])
    cube.write("history/trust", "extreme: all of it.\npatterns: also norms.\nmoving: 7 of 9: moved.", RUN, stage="add")
    cube.write("history/trust", "patterns: also norms.", RUN, stage="mul")
    assert [(c.level, c.title, c.details) for c in of(cube)] == [
        ("caution", "The mask was still changing", ("seed 1, model.kind = a, add: 7 of 9: moved.",)),
        (
            "caution",
            "Embeddings, norm gains, tied or parametrized weights are masked by the default patterns",
            ("2 masks: also norms.",),
        ),
    ]
