"""CIFAR-10's tasks: stages, classes, augmentation, bad options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modhook import UserError
from modhook_tasks.cifar10.base import CLASSES, augmented
from modhook_tasks.cifar10.removal import Cifar10, Cifar10Options
from modhook_tasks.cifar10.stability import Cifar10Stability, StabilityOptions


def test_each_stage_lacks_its_class() -> None:
    """The control sees all classes; ten stages see nine each, and copy the control's output mask."""
    task = Cifar10(Cifar10Options(source="generated"))
    assert [s.name for s in task.stages] == ["control", *CLASSES]
    assert {s.copied for s in task.stages[1:]} == {("output.*",)}
    whole = task.train_set("control")["label"]
    for i, name in enumerate(CLASSES):
        assert torch.equal(task.train_set(name)["label"], whole[whole != i])
    assert set(task.test_set("valid")["label"].tolist()) == set(range(10))


def test_stability_learns_each_function_twice() -> None:
    """Ten different ordered pairs, two stages each, of only those classes; copying is off unless asked for."""
    task = Cifar10Stability(StabilityOptions(source="generated"))
    assert len(task.repeats) == 10
    assert [s.name for s in task.stages] == [n for both in task.repeats.values() for n in both]
    assert not any(s.copied for s in task.stages)
    for name, (first, _) in task.repeats.items():
        assert {CLASSES[i] for i in task.train_set(first)["label"].tolist()} == set(name.split("-"))
    other = Cifar10Stability(StabilityOptions(source="generated", sets="leave_one_out", copied=("output.*",)))
    assert [s.copied for s in other.stages] == [()] + [("output.*",)] * 19


def test_every_seed_has_its_own_pairs() -> None:
    """Redrawn pairs differ between seeds and are drawn from all 90; names, images and the pairs of one seed stay the same."""
    task = Cifar10Stability(StabilityOptions(source="generated", redraw=True))
    task.load()
    seen: set[tuple[str, ...]] = set()
    for seed in range(1, 41):
        mine = task.for_seed(seed)
        assert [s.name for s in mine.stages] == [f"pair {i} {x}" for i in range(1, 11) for x in "ab"]
        assert mine.sets == task.for_seed(seed).sets
        pairs = {tuple(pair) for pair in mine.sets.values()}
        assert len(pairs) == 10
        assert all(a != b for a, b in pairs)
        seen |= pairs
        assert mine._parts is task._parts
    assert len(seen) > 80
    one, two = task.for_seed(1), task.for_seed(2)
    assert one.sets != two.sets
    for mine in (one, two):
        for name, (first, _) in mine.repeats.items():
            assert {CLASSES[i] for i in mine.train_set(first)["label"].tolist()} == set(mine.sets[name])
    fixed = Cifar10Stability(StabilityOptions(source="generated"))
    assert fixed.for_seed(1) is fixed.for_seed(2) is fixed


def test_augmentation_is_crop_and_flip() -> None:
    """Every image is one of the 81 crops of its padded self, or one's mirror image; all images are not treated alike."""
    images = torch.from_numpy(np.random.default_rng(1).integers(1, 256, (40, 3, 32, 32), np.uint8))
    out = augmented(images, np.random.default_rng(2))
    assert torch.equal(out, augmented(images, np.random.default_rng(2)))
    found = set()
    for padded, got in zip(F.pad(images, (4,) * 4), out, strict=True):
        crops = {
            (y, x, m): padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9) for m in (False, True)
        }
        [how] = [k for k, c in crops.items() if torch.equal(c.flip(2) if k[2] else c, got)]
        found.add(how)
    assert len(found) > 20
    assert {m for *_, m in found} == {True, False}


def test_bad_options_are_refused() -> None:
    """A class that does not exist, one named twice, nothing to do."""
    with pytest.raises(UserError, match=r"removed: unknown class 'cta' \(did you mean 'cat'\?\); CIFAR-10 has airplane"):
        Cifar10Options(removed=("cta",))
    with pytest.raises(UserError, match="names a class twice"):
        Cifar10Options(removed=("cat", "cat"))
    with pytest.raises(UserError, match="no mask to learn"):
        Cifar10Options(removed=(), control=False)
