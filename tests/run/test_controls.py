"""Controls that learn masks, each against the same call by hand on a plain copy of the network that is changed by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from control_task import CLASSES, STUDY, QuadrantOptions, Quadrants, installed
from torch import Tensor, nn

import modhook
from modhook import Masks, Tracker
from modhook.cube import logits_from, masks_from, open_cube, weights_from
from modhook.masks.order import smallest_enough
from modhook.noise.seeding import derive
from modhook.plugin.nonsense import moved
from modhook.run import run_study
from modhook.run.data import Draw
from modhook.study import restore

CONTROLS = {"shuffled": True, "untrained": True, "nonsense": True, "seed_ceiling": {"seeds": 2}}
KINDS = ("shuffled", "untrained", "nonsense", "mask seed 2")
STAGES = ("control", "low", "high")


def computed(folder: Path, changes: dict[str, Any]) -> Path:
    """Compute a study whose tables are changed, and return its cube."""
    table = copy.deepcopy(STUDY)
    for section, values in changes.items():
        table.setdefault(section, {}).update(values)
    everything = installed()
    outcome = run_study(restore(table, plugins=everything), folder, everything, Tracker())
    assert not outcome.failed
    return Path(outcome.path)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """The cube of the study with every control that learns masks."""
    return open_cube(computed(tmp_path_factory.mktemp("controls"), {"controls": CONTROLS}))


@pytest.fixture(scope="module")
def trained(cube: xr.DataTree) -> nn.Module:
    """The trained network, put together from its weights."""
    model = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 4))
    model.load_state_dict(weights_from(cube, 1))
    return model.eval()


def shuffled(model: nn.Module) -> nn.Module:
    """Move every element of each parameter by hand."""
    changed = copy.deepcopy(model)
    for name, parameter in changed.named_parameters():
        order = np.random.default_rng(derive(1, "shuffled", name)).permutation(parameter.numel())
        old = parameter.detach().clone().view(-1)
        for place, source in enumerate(order):
            parameter.data.view(-1)[place] = old[source]
    return changed


def untrained(model: nn.Module) -> nn.Module:
    """Build the network again, from the seed that is documented."""
    torch.manual_seed(derive(derive(1, "untrained"), "init"))
    return nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def network(kind: str, model: nn.Module) -> nn.Module:
    """Return the network of a kind of control."""
    return {"shuffled": shuffled, "untrained": untrained}.get(kind, copy.deepcopy)(model)


def relabelled(stage: str, data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace each label by hand: a cycle through the classes that the stage's training data have."""
    classes = CLASSES[stage]
    order = np.random.default_rng([1, *stage.encode()]).permutation(len(classes)).tolist()
    other = {classes[order[i]]: classes[order[i - 1]] for i in range(len(order))}
    labels = [other.get(int(q), int(q)) for q in data["quadrant"]]
    return {**data, "quadrant": torch.tensor(labels, dtype=data["quadrant"].dtype)}


class Nonsense(Quadrants):
    """The task with the labels of one stage replaced by hand."""

    stage = ""

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        return relabelled(self.stage, super().train_set(stage))


def sets_of(kind: str, stage: str) -> list[dict[str, Tensor]]:
    """Return the data of every split as a kind of control sees it."""
    task = Quadrants(QuadrantOptions())
    sets = [task.test_set(split) for split in task.splits]
    return [relabelled(stage, data) for data in sets] if kind == "nonsense" else sets


def accuracy(model: nn.Module, masks: Masks | None, kind: str, stage: str) -> list[float]:
    """Return every split's accuracy with the other weights of a plain copy set to zero."""
    plain = copy.deepcopy(model)
    for name, mask in (masks or {}).items():
        plain.get_parameter(name).data[~mask] = 0.0
    with torch.no_grad():
        return [
            float((plain(data["point"]).argmax(-1) == data["quadrant"]).double().mean()) for data in sets_of(kind, stage)
        ]


def of(found: xr.DataTree | xr.DataArray, stage: str, kind: str) -> Any:
    """Return the values of one control's stage."""
    return found.sel(seed=1, stage=f"{stage} ({kind})")


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_same_fit_on_the_other_network(kind: str, cube: xr.DataTree, trained: nn.Module) -> None:
    """Masks, logits and loss equal those of `fit_masks` called by hand: same steps, batches and noise, copied masks from the control's."""
    model = network(kind, trained)
    model.requires_grad_(False)
    masks: dict[str, Masks] = {}
    seed = derive(1, kind) if "seed" in kind else 1
    for stage in STAGES:
        task = (Nonsense if kind == "nonsense" else Quadrants)(QuadrantOptions())
        task.stage = stage
        fixed = Masks({"2.weight": masks["control"]["2.weight"]}) if stage == "low" else None
        fit = modhook.fit_masks(
            model, Draw(task, stage, 32, seed, torch.device("cpu")), task.loss, samples=2, steps=25, lr=0.5, beta=0.02,
            clip=1.0, fixed=fixed, reg_batch=64, seed=seed, label=stage, progress=False,
        )  # fmt: skip
        masks[stage] = fit.masks
        label = f"{stage} ({kind})"
        assert masks_from(cube, 1, label) == fit.masks
        found = logits_from(cube, 1, label)
        assert all(torch.equal(found[n], values) for n, values in fit.logits.items())
        loss = of(cube["controls/history"]["loss"], stage, kind).values
        assert loss.tolist() == fit.history["loss"].values.tolist()
    assert masks["high"] != masks_from(cube, 1, "high"), "the control must differ, or the comparison shows nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_plain_copies(kind: str, cube: xr.DataTree, trained: nn.Module) -> None:
    """Under the mask, without one, at the stage's size: each equals the accuracy of a copy whose weights are zeroed by hand."""
    model = network(kind, trained)
    for stage in STAGES:
        label = f"{stage} ({kind})"
        own, real, logits = masks_from(cube, 1, label), masks_from(cube, 1, stage), logits_from(cube, 1, label)
        expected = accuracy(model, own, kind, stage)
        assert of(cube["controls/scores"]["accuracy"], stage, kind).values == pytest.approx(expected)
        assert of(cube["controls/unmasked"]["accuracy"], stage, kind).values == pytest.approx(
            accuracy(model, None, kind, stage)
        )
        learned = [n for n in own if not (stage == "low" and n == "2.weight")]
        cuts = ranked(logits, learned, own)
        count = sum(int(real[n].sum()) for n in learned)
        equal = of(cube["controls/equal_size"]["accuracy"], stage, kind).values
        assert equal == pytest.approx(accuracy(model, cuts(count), kind, stage))
        assert float(of(cube["controls"]["density"], stage, kind)) == pytest.approx(own.kept() / own.size)
        assert float(of(cube["controls"]["of_density"], stage, kind)) == pytest.approx(real.kept() / real.size)


def ranked(logits: dict[str, Tensor], learned: list[str], masks: Masks) -> Callable[[int], Masks]:
    """Return the masks of the weights with the largest logits, as a function of their number; the rest stays as in `masks`."""
    every = sorted(((-float(x), learned.index(n), i) for n in learned for i, x in enumerate(logits[n].view(-1))))

    def cut(count: int) -> Masks:
        kept = {(n, i) for _, n, i in every[:count]}
        mine = {
            n: torch.tensor([(k, i) in kept for i in range(masks[n].numel())]).view(masks[n].shape)
            for k, n in enumerate(learned)
        }
        return Masks({n: mine.get(n, masks[n]) for n in masks})

    return cut


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_cut_that_scores_as_much(kind: str, cube: xr.DataTree, trained: nn.Module) -> None:
    """Of all cuts: the one whose size is told scores what the stage's mask scores on its split, the next smaller one does not."""
    model, splits = network(kind, trained), ("all", "low", "high")
    told = 0
    for stage in STAGES:
        own, logits = masks_from(cube, 1, f"{stage} ({kind})"), logits_from(cube, 1, f"{stage} ({kind})")
        at = splits.index(stage) if stage in splits else 0
        goal = float(cube["scores/accuracy"].sel(seed=1, stage=stage)[at])
        learned = [n for n in own if not (stage == "low" and n == "2.weight")]
        cuts, size = ranked(logits, learned, own), sum(own[n].numel() for n in learned)
        enough = [accuracy(model, cuts(n), kind, stage)[at] >= goal for n in range(size + 1)]
        rest = sum(int(m.sum()) for n, m in own.items() if n not in learned)
        found = float(of(cube["controls"]["equal_score"], stage, kind)) * own.size - rest
        if np.isnan(found):
            assert not enough[size]
            assert not enough[sum(int(own[n].sum()) for n in learned)]
            continue
        told += 1
        assert enough[round(found)]
        assert round(found) == 0 or not enough[round(found) - 1]
    assert told or kind != "mask seed 2", "masks of the same function reach what one of them reaches"


def test_the_study_s_own_numbers_are_those_without_controls(cube: xr.DataTree, tmp_path: Path) -> None:
    """Scores, history and masks are bit-equal to a run without controls, and no group of theirs has a control's stage."""
    plain = open_cube(computed(tmp_path, {}))
    assert set(cube.children) == {*plain.children, "controls", "seed_ceiling"}
    for group in ("scores", "history"):
        xr.testing.assert_identical(cube[group].to_dataset().load(), plain[group].to_dataset().load())
    for stage in STAGES:
        assert masks_from(cube, 1, stage) == masks_from(plain, 1, stage)
    assert cube["controls"]["kind"].values.tolist() == [k for k in KINDS for _ in STAGES]
    assert cube["controls"]["of"].values.tolist() == [*STAGES] * len(KINDS)
    assert cube["runs/status"].sel(seed=1).values.tolist() == [1] * 16


def test_seed_ceiling(cube: xr.DataTree) -> None:
    """IoU of two masks of one function, and of two functions, recounted from sets; the labels say which seeds."""
    seeds = ("{}", "{} (mask seed 2)")

    def kept(stage: str, seed: int) -> set[tuple[str, int]]:
        masks = masks_from(cube, 1, seeds[seed].format(stage))
        return {(n, i) for n, m in masks.items() for i in np.flatnonzero(m.numpy()).tolist()}

    def iou(a: set[Any], b: set[Any]) -> float:
        return len(a & b) / len(a | b)

    found = cube["seed_ceiling"].to_dataset().sel(seed=1)
    for stage in STAGES:
        pairs = {(a, b): iou(kept(stage, a), kept(stage, b)) for a, b in ((0, 1),)}
        assert float(found["iou"].sel(stage=stage, other=stage)) == pytest.approx(np.mean(list(pairs.values())))
        for (a, b), value in pairs.items():
            assert float(found["pairs"].sel(stage=stage, mask_seed=a + 1, other_seed=b + 1)) == pytest.approx(value)
    two = [iou(kept("low", a), kept("high", b)) for a in range(2) for b in range(2) if a != b]
    assert float(found["iou"].sel(stage="low", other="high")) == pytest.approx(np.mean(two))
    assert (found["chance"] > 0).all()
    assert (found["chance"] < 1).all()


def test_sizes_within_a_loss_of_the_score(tmp_path: Path) -> None:
    """With `within` a control's masks are the smallest that reach what the trained network's own had to reach on true labels."""
    cut = {"within": 0.3, "split": "all"}
    changes = {"masks": {"cut": cut}, "controls": {"shuffled": {"stages": ["control"]}, "nonsense": {"stages": ["control"]}}}
    found = open_cube(computed(tmp_path, {**changes, "task": {"copies": False}}))
    goal = 0.7 * float(found["scores/accuracy"].sel(seed=1, stage="unmasked", split="all"))
    assert found["controls"]["stage"].values.tolist() == ["control (shuffled)", "control (nonsense)"]
    for kind in ("shuffled", "nonsense"):
        score = float(of(found["controls/scores"]["accuracy"], "control", kind).sel(split="all"))
        density, equal = (float(of(found["controls"][name], "control", kind)) for name in ("density", "equal_score"))
        assert density == masks_from(found, 1, f"control ({kind})").density
        if np.isnan(equal):
            assert score < goal
        else:
            assert (density, score >= goal) == (equal, True)
    assert found["controls"]["equal_score"].notnull().any()


def test_an_edited_network_is_edited_for_its_controls_too(tmp_path: Path) -> None:
    """The score under a control's mask is that of the shuffled network with its column doubled, without copies of the task's."""
    changes = {"task": {"name": "edited", "copies": False}, "controls": {"shuffled": {"stages": ["high"]}}}
    found = open_cube(computed(tmp_path, changes))
    model = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 4))
    model.load_state_dict(weights_from(found, 1))
    model = shuffled(model)
    model[0].weight.data[:, 0] *= 2
    own = masks_from(found, 1, "high (shuffled)")
    score = of(found["controls/scores"]["accuracy"], "high", "shuffled").values
    assert score == pytest.approx(accuracy(model, own, "shuffled", "high"))
    whole = of(found["controls/unmasked"]["accuracy"], "high", "shuffled").values
    assert whole == pytest.approx(accuracy(model, None, "shuffled", "high"))


def test_the_smallest_cut_where_the_score_rises_and_falls() -> None:
    """A network that knows nothing as a whole may have a cut that does; the edge below the first size that is tried is exact."""

    def measured(count: int) -> float:
        return float(137 <= count <= 500)

    assert smallest_enough(measured, [1, 10, 100, 400, 1000], 1.0) == 137
    assert smallest_enough(measured, [1, 10, 100, 1000], 1.0) is None
    assert smallest_enough(measured, [10], 0.0) == 0
    assert smallest_enough(measured, [400], float("nan")) is None


def test_classes_move_in_one_cycle() -> None:
    """No class stays itself, each is taken once, what is not known stays, and stage and seed matter."""
    known = torch.tensor([1, 4, 5, 9])
    seen = set()
    for stage in ("add", "mul"):
        for seed in range(20):
            told = moved(torch.tensor([1, 4, 5, 9, 7, 0], dtype=torch.uint8), known, stage, seed).tolist()
            assert told[4:] == [7, 0]
            assert sorted(told[:4]) == [1, 4, 5, 9]
            follow, at = dict(zip([1, 4, 5, 9], told, strict=False)), 1
            cycle = [at := follow[at] for _ in range(4)]
            assert set(cycle) == {1, 4, 5, 9}
            seen.add(tuple(told))
    assert len(seen) > 4
