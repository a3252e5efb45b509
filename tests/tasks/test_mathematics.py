"""The mathematics task on made-up questions in the official layout: repeats, hold-out, tokens, stages, splits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import modhook
from modhook_tasks.mathematics.modules import MODULES
from modhook_tasks.mathematics.task import Mathematics, MathematicsOptions

HELD_OUT = 7


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path / "cache"))


def write_questions(folder: Path, module: str = "add_or_sub") -> dict[str, list[tuple[str, str]]]:
    """Write a small official folder, full of repeats within and between files, and return its pairs by set."""
    rng = random.Random(5)
    found: dict[str, list[tuple[str, str]]] = {}
    for i, (name, path) in enumerate(MODULES[module].files.items()):
        numbers = [(rng.randrange(9 + i), rng.randrange(9)) for _ in range(70)]
        # A repeat may have another answer: the first one counts.
        found[name] = [(f"What is {a} + {b}?", rng.choice([f"{a + b}", f"{a + b}.0"])) for a, b in numbers]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(f"{q}\n{a}\n" for q, a in found[name]))
    return found


def by_hand(found: dict[str, list[tuple[str, str]]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return train and test pairs as text, by plain loops over lists."""
    train, test, asked = {}, {}, []
    for name in ("train-easy", "train-medium", "train-hard", "interpolate", "extrapolate"):
        first = []
        for question, answer in found[name]:
            if question not in asked:
                asked.append(question)
                first.append(f"{question} -> {answer}")
        if name.startswith("train"):
            out = sorted(np.random.RandomState(1234).choice(len(first), HELD_OUT, replace=False).tolist())
            test[name] = [first[i] for i in out]
            train[name] = [pair for i, pair in enumerate(first) if i not in out]
        else:
            test[name] = first
    return train, test


def make(folder: Path, **options: object) -> Mathematics:
    """Return the task on a folder."""
    return Mathematics(MathematicsOptions(source="folder", folder=str(folder), held_out=HELD_OUT, **options))


def test_repeats_go_and_questions_are_held_out(tmp_path: Path) -> None:
    """Train and test sets equal a recomputation with plain lists: repeats first, in the official order, then the hold-out."""
    train, test = by_hand(write_questions(tmp_path))
    assert sum(map(len, train.values())) < 3 * 70 - 3 * HELD_OUT, "there are repeats to remove"
    task = make(tmp_path)
    everything = train["train-easy"] + train["train-medium"] + train["train-hard"]
    assert task.decode(task.train_set(None)) == task.decode(task.train_set("control")) == everything
    assert task.decode(task.train_set("easy")) == train["train-easy"]
    expected = {
        "iid": test["train-easy"] + test["train-medium"] + test["train-hard"],
        "easy": test["train-easy"],
        "hard": test["train-hard"],
        "interpolate": test["interpolate"],
        "extrapolate": test["extrapolate"],
    }
    found = {split: task.decode(task.test_set(split)) for split in task.splits}
    assert {s: sorted(pairs) for s, pairs in found.items()} == {s: sorted(pairs) for s, pairs in expected.items()}
    assert not set(everything) & set().union(*found.values())


def test_tokens_by_hand(tmp_path: Path) -> None:
    """Token 0 ends and pads, token i + 1 is character i of the sorted set; lengths count the end; a batch is int64, trimmed."""
    write_questions(tmp_path)
    task = make(tmp_path)
    tokens = task.shape()["source_tokens"]
    characters = sorted(set("What is + ?0123456789."))
    assert tokens == task.shape()["target_tokens"] == ("<end>", *characters)
    assert task.shape()["source_vocabulary"] == task.shape()["target_vocabulary"] == len(characters) + 1
    data = {key: tensor[:3] for key, tensor in task.train_set(None).items()}
    batch = task.prepare(data, np.random.default_rng(0), training=True)
    assert batch["teacher_forcing"] is True
    for item, pair in enumerate(task.decode(data)):
        for key, line in zip(("source", "target"), pair.split(" -> "), strict=True):
            row = [characters.index(c) + 1 for c in line] + [0]
            width = int(data[f"{key}_length"].max())
            assert batch[key][item].tolist() == row + [0] * (width - len(row))
            assert batch[f"{key}_length"][item] == len(row)
    assert all(batch[key].dtype == torch.int64 for key in data)
    assert data["source"].dtype == torch.uint8, "kept small until a batch is drawn"
    assert task.prepare(data, np.random.default_rng(0), training=False)["teacher_forcing"] is False


def test_short_answers_first(tmp_path: Path) -> None:
    """Evaluation batches are of like length."""
    write_questions(tmp_path)
    lengths = make(tmp_path).test_set("iid")["target_length"]
    assert torch.equal(lengths, lengths.sort().values)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_files(module: str, tmp_path: Path) -> None:
    """All five load; extrapolation is measured where the official data have a file for it."""
    write_questions(tmp_path, module)
    task = make(tmp_path, module=module)
    assert ("extrapolate" in task.splits) == (module in ("add_or_sub", "sort"))
    assert [stage.name for stage in task.stages] == ["control", "easy"]
    assert all(len(task.test_set(split)["source"]) for split in task.splits)


def test_splits_may_be_chosen(tmp_path: Path) -> None:
    """Only what is asked for is measured, and a set that is not measured need not be there."""
    write_questions(tmp_path)
    (tmp_path / MODULES["add_or_sub"].files["extrapolate"]).unlink()
    task = make(tmp_path, splits=("hard", "iid"))
    assert task.splits == ("hard", "iid")
    assert len(task.test_set("iid")["source"]) == 3 * HELD_OUT
    with pytest.raises(modhook.UserError, match="unknown split 'easy' of mathematics; this study has hard, iid"):
        task.test_set("easy")
    with pytest.raises(modhook.UserError, match="unknown stage 'hard'"):
        task.train_set("hard")


def test_options_that_do_not_fit() -> None:
    """Each is refused in a sentence before anything is read."""
    with pytest.raises(modhook.UserError, match="source is 'folder' but folder is not set"):
        MathematicsOptions(source="folder")
    with pytest.raises(modhook.UserError, match="a folder is given but source is 'official'"):
        MathematicsOptions(folder="x")
    with pytest.raises(modhook.UserError, match="held_out is 100, but only train_size = 100"):
        MathematicsOptions(source="generated", train_size=100, held_out=100)
    with pytest.raises(modhook.UserError, match=r"unknown split 'iit' of add_or_sub \(did you mean 'iid'\?\)"):
        MathematicsOptions(splits=("iit",))
    with pytest.raises(
        modhook.UserError, match=r"unknown split 'extrapolate' of collect .*; valid splits: iid, easy, hard, inter"
    ):
        MathematicsOptions(module="collect", splits=("extrapolate",))
    with pytest.raises(modhook.UserError, match="names a split twice"):
        MathematicsOptions(splits=("iid", "iid"))
