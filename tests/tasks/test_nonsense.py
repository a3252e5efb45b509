"""What the tasks' nonsense answers are: another name for each digit, token or class, the same in training and in tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modhook import UserError
from modhook_tasks.addmul import AddMul, AddMulOptions
from modhook_tasks.double_addition import DoubleAddition, DoubleAdditionOptions
from modhook_tasks.known.task import KnownOptions, KnownTask
from modhook_tasks.scan.task import Scan, ScanOptions


def renamed(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Return which name each answer has; fails where one has two, or is still itself."""
    found: dict[int, int] = {}
    for old, new in pairs:
        assert found.setdefault(old, new) == new
        assert old != new
    assert set(found) == set(found.values())
    return found


@pytest.mark.parametrize("mode", ["addmul", "fnn", "together"])
def test_digits(mode: str) -> None:
    """Every digit of the answers is written as another one; the inputs are as they were."""
    if mode == "addmul":
        task: AddMul | DoubleAddition = AddMul(AddMulOptions(500, 200))
        stages = ("add", "mul")
    else:
        task, stages = DoubleAddition(DoubleAdditionOptions(mode=mode, train_size=500, valid_size=200)), ("tuple1", "tuple2")
    rng, names = np.random.default_rng(0), []
    for stage in stages:
        pairs = []
        for data, training in ((task.train_set(stage), True), (task.test_set("iid"), False)):
            plain = task.prepare(data, rng, training)
            changed = task.prepare(task.nonsense(data, stage, 3), rng, training)
            assert torch.equal(plain["inputs"], changed["inputs"])
            pairs += zip(plain["target"].flatten().tolist(), changed["target"].flatten().tolist(), strict=True)
        names.append(renamed(pairs))
        assert len(names[-1]) == 10
    assert names[0] != names[1]
    again = task.prepare(task.nonsense(task.test_set("iid"), stages[0], 4), rng, False)["target"]
    assert not torch.equal(again, task.prepare(task.nonsense(task.test_set("iid"), stages[0], 3), rng, False)["target"])


def test_tokens() -> None:
    """Every action of the answers is another one, what the stage's training data lack is as it was; ends, lengths and commands stay."""
    task = Scan(ScanOptions(splits=("simple",)))
    pairs = []
    for data in (task.train_set("control"), task.test_set("simple")):
        changed = task.nonsense(data, "control", 1)
        assert all(torch.equal(changed[n], data[n]) for n in data if n != "target")
        assert changed["target"].dtype == data["target"].dtype
        assert torch.equal(changed["target"] == 0, data["target"] == 0)
        old, new = data["target"].flatten().tolist(), changed["target"].flatten().tolist()
        pairs += [(a, b) for a, b in zip(old, new, strict=True) if a]
    assert len(renamed(pairs)) == 6


def test_known_classes_and_numbers() -> None:
    """Classes of a welded network change places; a network whose answers are numbers is refused in one sentence."""
    welded = KnownTask(KnownOptions(network="welded_fnn"))
    welded.load()
    stage = welded.stages[0].name
    pairs = []
    for data in (welded.train_set(stage), welded.test_set(stage)):
        pairs += zip(data["target"].tolist(), welded.nonsense(data, stage, 1)["target"].tolist(), strict=True)
    renamed(pairs)
    compiled = KnownTask(KnownOptions())
    with pytest.raises(UserError, match=r"return numbers and not classes, which cannot change places"):
        compiled.nonsense(compiled.train_set(compiled.stages[0].name), compiled.stages[0].name, 1)
