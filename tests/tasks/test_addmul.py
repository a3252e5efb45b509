"""The add/mul task against the reference's counts and Python's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modhook.errors import StudyError
from modhook.study import structure
from modhook_tasks.addmul import AddMul, AddMulOptions, problems
from modhook_tasks.digits import combined, join_digits, one_hot_digits, split_digits


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


def test_two_digits_are_drawn_as_before() -> None:
    """The default draws what RandomState(0x12345678 + i) gives for numbers below 100, in one byte each."""
    for name, i, size in (("_train", 0, 1_000_000), ("_valid", 2, 10_000)):
        random = np.random.RandomState(0x12345678 + i)
        found = getattr(AddMul(AddMulOptions()), name)
        assert np.array_equal(found["operands"], random.randint(0, 100, (size, 2)))
        assert np.array_equal(found["operation"], random.randint(0, 2, (size,)))
        assert {t.dtype for t in found.values()} == {torch.uint8}


@pytest.mark.parametrize("n", [1, 3, 6, 9])
def test_numbers_of_other_lengths_by_hand(n: int) -> None:
    """Sizes, inputs, targets, results and text equal Python's arithmetic modulo 10**n; a table of all problems is never built."""
    task = AddMul(AddMulOptions(200, 60, n_digits=n))
    assert task.shape() == {"inputs": 20 * n + 2, "outputs": 10 * n}
    random = np.random.RandomState(0x12345678 + 2)
    operands = random.randint(0, 10**n, (60, 2)).tolist()
    operation = random.randint(0, 2, (60,)).tolist()
    raw = task.test_set("iid")
    batch = task.prepare(raw, np.random.default_rng(0), True)
    perfect = torch.nn.functional.one_hot(batch["target"], 10).float().flatten(1)  # (B, 10 n)
    assert task.score(lambda x: perfect, batch)["accuracy"].tolist() == [1.0] * 60
    written, results, texts = task.predict(lambda x: perfect, batch), task.results(batch), task.decode(raw)
    for i, ((a, b), op) in enumerate(zip(operands, operation, strict=True)):
        digits = [d for number in (a, b) for d in reversed(f"{number:0{n}d}")]
        hot = [10 * place + int(digit) for place, digit in enumerate(digits)]
        assert batch["inputs"][i].nonzero().flatten().tolist() == [*hot, 20 * n + op]
        both = [(a + b) % 10**n, (a * b) % 10**n]
        assert results[i].tolist() == both
        assert written[i] == both[op]
        assert batch["target"][i].tolist() == [int(d) for d in reversed(f"{both[op]:0{n}d}")]
        assert texts[i] == f"{a} {'+*'[op]} {b} = {both[op]:0{n}d}"
    assert [set(task.train_set(s)["operation"].tolist()) for s in ("add", "mul")] == [{0}, {1}]


def test_long_products_stay_exact() -> None:
    """Products of three numbers of nine digits leave 64 bits, and are right all the same; digits join to their number."""
    numbers = torch.tensor([[999_999_999, 999_999_998, 999_999_997], [123_456_789, 987_654_321, 5]])
    for operation, made in (
        ("mul", [a * b * c for a, b, c in numbers.tolist()]),
        ("add", [sum(r) for r in numbers.tolist()]),
    ):
        assert combined(operation, numbers, 9).tolist() == [value % 10**9 for value in made]
    assert join_digits(torch.tensor([[7, 0, 3], [0, 0, 0]])).tolist() == [307, 0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "task.n_digits: must be at least 1, not 0"),
        (-2, "must be at least 1"),
        (10, "must be at most 9, not 10"),
        (2.5, "2.5 is not a whole number"),
        (True, "true is not a whole number"),
    ],
)
def test_digits_that_do_not_fit(value: object, words: str) -> None:
    """Each is one sentence with its path, before anything is drawn."""
    with pytest.raises(StudyError, match=words):
        structure(AddMulOptions, {"n_digits": value}, "task")


def test_a_study_of_three_digits(tmp_path: Path) -> None:
    """The smoke variant runs with the option, and the confusion of operations counts every problem."""
    from modhook.cli import main
    from modhook.cube import open_cube

    study = Path(__file__).parents[2] / "studies/addmul_lstm.toml"
    with pytest.raises(SystemExit) as stop:
        main(["run", str(study), "--variant", "smoke", "--set", "task.n_digits=3", "--out", str(tmp_path)])
    assert stop.value.code == 0
    with open_cube(tmp_path / "addmul_lstm-smoke.zarr") as cube:
        counts = cube["operation_confusion"]["count"].sel(stage="control")
        assert float(counts.sum()) == 100
        assert bool(cube["scores"]["accuracy"].notnull().all())
