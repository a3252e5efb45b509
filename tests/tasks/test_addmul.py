"""The add/mul task against the reference's counts and Python's own arithmetic."""

from __future__ import annotations

import numpy as np
import torch

from modhook_tasks.addmul import AddMul, AddMulOptions, problems
from modhook_tasks.digits import one_hot_digits, split_digits


def test_counts_of_the_reference() -> None:
    """Sizes of the parts, and that every distinct problem occurs in training, are the published ones."""
    task = AddMul(AddMulOptions())
    assert [len(task.train_set(s)["operation"]) for s in (None, "control", "add", "mul")] == [
        10**6,
        10**6,
        499_448,
        500_552,
    ]
    assert [len(task.test_set(s)["operation"]) for s in task.splits] == [10_000, 4_951, 5_049]
    data = task.train_set(None)
    a, b = data["operands"].long().unbind(1)
    assert len((a * 200 + b * 2 + data["operation"]).unique()) == 20_000
    assert set(task.train_set("mul")["operation"].tolist()) == {1}


def test_items_by_hand() -> None:
    """Inputs, targets and text of problems equal Python's arithmetic, least significant digit first."""
    task = AddMul(AddMulOptions(50, 50))
    raw = task.test_set("iid")
    batch = task.prepare(raw, np.random.default_rng(0), True)
    texts = task.decode(raw)
    for i, ((a, b), op) in enumerate(zip(raw["operands"].tolist(), raw["operation"].tolist(), strict=True)):
        answer = (a + b if op == 0 else a * b) % 100
        assert batch["target"][i].tolist() == [answer % 10, answer // 10]
        hot = [a % 10, 10 + a // 10, 20 + b % 10, 30 + b // 10, 40 + op]
        assert batch["inputs"][i].nonzero().flatten().tolist() == hot
        assert texts[i] == f"{a} {'+*'[op]} {b} = {answer:02d}"


def test_a_sample_is_right_only_with_all_digits() -> None:
    """The score of an item with one wrong digit is 0; the loss is the mean cross-entropy over digits."""
    task = AddMul(AddMulOptions(4, 4))
    batch = task.prepare(task.test_set("iid"), np.random.default_rng(0), False)
    perfect = torch.nn.functional.one_hot(batch["target"], 10).double() * 20  # (B, 2, 10)
    assert task.score(lambda x: perfect.flatten(1), batch)["accuracy"].tolist() == [1.0] * 4
    wrong = perfect.clone()
    wrong[0, 1] = wrong[0, 1].roll(1)
    assert task.score(lambda x: wrong.flatten(1), batch)["accuracy"].tolist() == [0.0, 1.0, 1.0, 1.0]
    expected = -torch.log_softmax(wrong, -1).gather(-1, batch["target"][..., None]).mean()
    torch.testing.assert_close(task.loss(lambda x: wrong.flatten(1), batch), expected)


def test_digits() -> None:
    """Digits of numbers with more places."""
    assert split_digits(torch.tensor([705]), 3).tolist() == [[5, 0, 7]]
    assert one_hot_digits(torch.tensor(31)).nonzero().flatten().tolist() == [1, 13]
    assert problems(3, 1)["operands"].shape == (3, 2)
