"""Claims about SCAN's splits, classes of images and permutations: cubes with known numbers, and what the claims take for granted."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transfer_measures
from cubes_of_studies import networks
from reproduce import ROOT, without_folder
from reproduction_page import Row, rows
from verdict_rule import SEEN, UNCLEAR

import modhook
from modhook.cube import create, pack
from modhook.cube.plan import Plan
from modhook.plugin.variables import Variable
from modhook.study import load, resolved
from modhook.study.source import shipped_files

SEEDS = (1, 2, 3)


def found(folder: Path, name: str, labels: Mapping[str, Mapping[str, Sequence[str]]], numbers: Mapping[str, Any]) -> dict[str, Row]:
    """Return the rows, by claim, of a study's cube whose variables have these numbers, the same in three seeds up to a thousandth."""
    study = resolved(load(shipped_files()[name], overrides=["study.seeds=3"]))
    dims = {variable: tuple(labels[variable.partition("/")[0]])[: np.ndim(value)] for variable, value in numbers.items()}
    declared = tuple(Variable(variable, own, "float64", "d") for variable, own in dims.items())
    cube = create(folder / f"{name}.zarr", Plan({"study": study, "versions": {"torch": "2.0"}}, {"seed": [*SEEDS]}, declared, labels))
    for seed in SEEDS:
        for variable, value in numbers.items():
            for i, stage in enumerate(labels[variable.partition("/")[0]]["stage"]):
                cube.write(variable, np.asarray(value[i], dtype=float) - seed / 1000, {"seed": seed}, stage=stage)
        for stage in labels["scores"]["stage"]:
            cube.set_status({"seed": seed}, stage, "done", threads=1)
    return {row.claim.key: row for row in rows(networks([pack(cube.path, folder / "cubes" / f"{name}.zip").path]))}


SCAN = ("control", "jump", "length", "turn_left")
SCAN_SPLITS = ("simple", "jump", "length", "turn_left")


@pytest.mark.parametrize(("learned", "word"), [(0.97, SEEN), (0.5, UNCLEAR)])
def test_a_split_is_lost_only_by_a_mask_that_does_what_it_learned(learned: float, word: str, tmp_path: Path) -> None:
    """The drop counts from the control's mask to the split's own; a mask that fails its own training items tells nothing."""
    labels = {
        "scores": {"stage": ("unmasked", *SCAN), "split": SCAN_SPLITS},
        "trained_on": {"stage": SCAN},
    }
    jump = [0.9, 0.1, 0.95, 0.95]
    scores = [[1.0] * 4, [0.99] * 4, jump, [0.99, 0.99, 0.2, 0.99], [0.99, 0.99, 0.99, 0.9]]
    row = found(tmp_path, "scan", labels, {"scores/accuracy": scores, "trained_on/accuracy": [0.99, learned, 0.99, 0.99]})
    assert row["scan-jump"].measured.values == pytest.approx([0.99 - 0.1] * 3)
    assert row["scan-jump"].verdict.word == word
    if word == UNCLEAR:
        assert "own mask on its training items: 0.50 on average" in row["scan-jump"].verdict.why
    assert row["scan-turn_left"].measured.values == pytest.approx([0.09] * 3)
    beside = {b.label: b.values for b in row["scan-jump"].measured.beside}
    assert beside["the split's own mask on its own training items"] == pytest.approx([learned - s / 1000 for s in SEEDS])
    assert "random masks" not in beside  # nothing was computed


@pytest.mark.parametrize(
    ("whole", "own", "back", "why"),
    [(0.85, 0.85, 0.2, ""), (0.85, 0.85, 0.9, ""), (0.4, 0.85, 0.2, "all classes"), (0.85, 0.4, 0.2, "worst mask")],
)
def test_a_class_is_lost_only_by_masks_that_do_the_others(whole: float, own: float, back: float, why: str, tmp_path: Path) -> None:
    """Mean and median over the classes that were removed; a control or a mask that does not work tells nothing.

    Where a constant brings most of the class back, the row says so.
    """
    stages = ("control", "cat", "ship")
    labels = {
        "scores": {"stage": ("unmasked", *stages), "split": ("valid",)},
        "class_removal": {"stage": stages},
        "logit_adjustment": {"stage": stages},
        "trained_on": {"stage": stages},
    }
    nan = float("nan")
    numbers = {
        "scores/accuracy": [[0.88], [whole], [0.77], [0.77]],
        "class_removal/target_drop": [nan, 1.0, 0.9],
        "class_removal/other_drop": [nan, 0.05, 0.03],
        "class_removal/other_share": [nan, 0.05, 0.04],
        "logit_adjustment/target_drop": [nan, 0.1, back],
        "logit_adjustment/other_drop": [nan, 0.02, 0.02],
        "logit_adjustment/auc": [nan, 0.9, 0.8],
        "logit_adjustment/control_auc": [nan, 0.95, 0.95],
        "trained_on/accuracy": [0.88, own, 0.9],
    }
    row = found(tmp_path, "cifar10_cnn", labels, numbers)
    target, others = row["cifar-target"], row["cifar-others"]
    assert target.measured.values == pytest.approx([0.95 - s / 1000 for s in SEEDS])
    assert others.measured.values == pytest.approx([0.045 - s / 1000 for s in SEEDS])
    assert [r.verdict.word for r in (target, others)] == [UNCLEAR if why else SEEN] * 2
    assert why in target.verdict.why
    beside = {b.label: b.values for b in target.measured.beside}
    one, other = (n for n in beside if n.startswith("without "))
    assert [beside[n][0] for n in (one, other)] == pytest.approx([0.999, 0.899])
    assert ("cat 9.8 %, ship 19.8 %" in target.measured.reading()) == (back == 0.2)
    assert "takes nothing from the others" in others.measured.reading()
    assert beside["of masks without a class, on images they were learned on"] == pytest.approx([(own + 0.9) / 2 - s / 1000 for s in SEEDS])


@pytest.mark.parametrize(("used", "second"), [(0.2, 0.98), (0.97, 0.98), (0.2, 0.5)])
def test_reuse_beside_what_is_in_use(used: float, second: float, tmp_path: Path) -> None:
    """The inner layer that reuses most, and the last; random masks would reuse what is in use; both tasks are learned."""
    stages = ("control", "permutation1", "permutation2")
    splits = ("permutation0", "permutation1", "permutation2")
    labels = {
        "scores": {"stage": stages, "split": splits},
        "transfer_sharing": {"stage": stages, "parameter": ("layer1.weight", "layer2.weight", "output.weight", "output.bias")},
    }
    nan = [float("nan")] * 4
    numbers = {
        "scores/accuracy": [[0.98, 0.1, 0.1], [0.98, second, 0.1], [0.98, 0.98, 0.98]],
        "transfer_sharing/reused": [nan, [0.02, 0.25, 0.9, 0.99], [0.5] * 4],
        "transfer_sharing/used": [nan, [0.1, 0.3, used, 0.9], [0.5] * 4],
    }
    row = found(tmp_path, "transfer", labels, numbers)
    little, last = row["transfer-little"], row["transfer-last"]
    assert little.measured.values == pytest.approx([0.25 - s / 1000 for s in SEEDS])
    assert last.measured.values == pytest.approx([0.9 - s / 1000 for s in SEEDS])
    assert {b.label: b.values[0] for b in little.measured.beside}["in use by then (what random masks would reuse)"] == pytest.approx(0.299)
    assert ("It is no more than masks drawn evenly would reuse." in last.measured.reading()) == (used > 0.9)
    assert "goes on to the tenth task, by which more is in use; 3 were learned here" in last.measured.reading()
    assert {b.label: b.values[0] for b in little.measured.beside}["in `layer2.weight`"] == pytest.approx(0.249)
    assert [r.verdict.word for r in (little, last)] == [SEEN if second > 0.9 else UNCLEAR] * 2


def test_a_folder_of_images_is_no_path_on_the_page(tmp_path: Path) -> None:
    """A copy of a cube names no folder of one machine, and stays a valid cube; the row says what the images are, the command downloads."""
    images = resolved(load(shipped_files()["cifar10_cnn"], overrides=["task.source=folder", "task.folder=/home/me/images"]))
    plan = Plan(
        {"study": images, "versions": {"torch": "2.0"}},
        {"seed": [1]},
        (Variable("scores/accuracy", ("stage", "split"), "float64", "d"),),
        {"scores": {"stage": ("unmasked", "control"), "split": ("valid",)}},
    )
    cube = create(tmp_path / "cifar10_cnn.zarr", plan)
    for stage in ("unmasked", "control"):
        cube.set_status({"seed": 1}, stage, "done", threads=1)
    without_folder(cube.path)
    packed = pack(cube.path, tmp_path / "cifar10_cnn.zip").path
    assert not any(b"/home/me" in zipfile.ZipFile(packed).read(name) for name in zipfile.ZipFile(packed).namelist())
    (network,) = networks([packed])
    assert "images that have been through JPEG (mean error about 5 of 255)" in network.differences()
    assert not any("task." in told for told in network.differences())
    assert "task." not in network.commands()[0]


def test_reuse_is_that_of_the_packed_masks() -> None:
    """Of `transfer`, counted by hand: what the second mask keeps of the first one's weights by layer, and what is in use by then."""
    (network,) = networks([ROOT / "docs" / "cubes" / "transfer.zip"])
    row = {"little": transfer_measures.reuses_little(network, []), "last": transfer_measures.reuses_last(network, [])}
    for at, seed in enumerate(network.cube["seed"].values.tolist()):
        first, second = (dict(modhook.masks_from(network.path, seed, stage).items()) for stage in ("control", "permutation1"))
        names = [n for n in first if not n.endswith("bias")]
        reused = [int((first[n] & second[n]).sum()) / int(second[n].sum()) for n in names]
        assert row["little"].values[at] == pytest.approx(max(reused[1:-1]))
        assert row["last"].values[at] == pytest.approx(reused[-1])
        assert row["last"].beside[0].values[at] == pytest.approx(float(first[names[-1]].double().mean()))
    assert "6 of 62, 0 of 49 and 3 of 44 weights are reused, biases aside; " in row["last"].reading()
    assert "of masks drawn evenly 6.01, 4.13 and 3.09 would be" in row["last"].reading()
    assert "No seed reaches" in row["last"].reading()
