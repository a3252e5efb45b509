"""The mathematics task on made-up questions in the official layout: repeats, hold-out, tokens, stages, splits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
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


def write_questions(
    folder: Path, module: str = "add_or_sub", words: str = "What is", seed: int = 5
) -> dict[str, list[tuple[str, str]]]:
    """Write a small official folder, full of repeats within and between files, and return its pairs by set."""
    rng = random.Random(seed)
    found: dict[str, list[tuple[str, str]]] = {}
    for i, (name, path) in enumerate(MODULES[module].files.items()):
        numbers = [(rng.randrange(9 + i), rng.randrange(9)) for _ in range(70)]
        # A repeat may have another answer: the first one counts.
        found[name] = [(f"{words} {a} + {b}?", rng.choice([f"{a + b}", f"{a + b}.0"])) for a, b in numbers]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(f"{q}\n{a}\n" for q, a in found[name]))
    return found


def by_hand(found: dict[str, list[tuple[str, str]]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return train and test pairs as text, by plain loops over lists."""
    train, test, asked = {}, {}, []
    for name in (s for s in ("train-easy", "train-medium", "train-hard", "interpolate", "extrapolate") if s in found):
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


def test_the_official_modules() -> None:
    """Names, areas and extrapolation files are those of the installed package, which made the official data."""
    modules = pytest.importorskip("mathematics_dataset.modules", reason="the extra `mathematics` is missing")
    assert modules is not None
    code = """
import json
from modhook_tasks.mathematics.patched import import_fixed
import_fixed()
from mathematics_dataset.modules import modules
train, beyond = modules.train(lambda limits: limits), modules.test_extra()
print(json.dumps([{a: sorted(names) for a, names in found.items()} for found in (train, beyond)]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    train, beyond = json.loads(done.stdout)
    assert {f"{area}__{name}" for area, names in train.items() for name in names} == {
        f"{m.area}__{m.name}" for m in MODULES.values()
    }
    assert {f"{area}__{name}" for area, names in beyond.items() for name in names} == {
        f"{m.area}__{m.harder}" for m in MODULES.values() if m.harder
    }
    assert len(MODULES) == 56


@pytest.mark.parametrize(
    "module", ["add_or_sub", "linear_1d", "differentiate", "sort", "collect", "conversion", "mul", "is_prime"]
)
def test_every_module_has_its_files(module: str, tmp_path: Path) -> None:
    """The paper's five and others load; extrapolation is measured where the official data have a file for it."""
    write_questions(tmp_path, module)
    task = make(tmp_path, module=module)
    assert ("extrapolate" in task.splits) == (module in ("add_or_sub", "sort", "conversion", "mul"))
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
    for options, words in (
        ({"module": "add_or_subb"}, r"unknown module 'add_or_subb' in task.module \(did you mean 'add_or_sub'\?\)"),
        ({"module": ("sort", "algebra__linear_1")}, r"unknown module 'algebra__linear_1' .*did you mean 'linear_1d'"),
        ({"module": ("sort", "comparison__sort")}, "names a module twice: sort, sort"),
        ({"module": ()}, "task.module is empty"),
        (
            {"train": ("esay",)},
            r"unknown difficulty 'esay' in task.train \(did you mean 'easy'\?\); valid: easy, medium, hard",
        ),
        ({"masks": ("hard", "hard")}, "task.masks must name some of easy, medium, hard, each once, not hard, hard"),
        ({"train": ()}, "task.train must name some of easy, medium, hard, each once, not none"),
        ({"splits": ("hard_sort",)}, r"unknown split 'hard_sort' of add_or_sub"),
        ({"module": ("sort", "collect"), "splits": ("extrapolate_collect",)}, "of sort and collect .*extrapolate_sort"),
    ):
        with pytest.raises(modhook.UserError, match=words):
            MathematicsOptions(**options)


def test_difficulties_by_hand(tmp_path: Path) -> None:
    """`train` and `masks` choose whose rows are trained on; `iid` is what was held out of `train`; names follow `masks`."""
    train, test = by_hand(write_questions(tmp_path))
    easy, medium, hard = (train[f"train-{d}"] for d in ("easy", "medium", "hard"))
    task = make(tmp_path, train=("hard", "easy"), masks=("medium", "hard"))
    assert [s.name for s in task.stages] == ["control", "medium_hard"]
    assert [s.doc for s in task.stages] == ["easy and hard training questions", "medium and hard training questions"]
    assert task.splits == ("iid", "easy", "medium", "hard", "interpolate", "extrapolate")
    for stage, expected in ((None, easy + hard), ("control", easy + hard), ("medium_hard", medium + hard)):
        assert task.decode(task.train_set(stage)) == expected
    assert sorted(task.decode(task.test_set("iid"))) == sorted(test["train-easy"] + test["train-hard"])
    assert sorted(task.decode(task.test_set("medium"))) == sorted(test["train-medium"])
    with pytest.raises(modhook.UserError, match="unknown stage 'easy' of mathematics; it has control and medium_hard"):
        task.train_set("easy")
    alone = make(tmp_path, train=("easy",))
    assert alone.decode(alone.train_set(None)) == easy
    assert sorted(alone.decode(alone.test_set("iid"))) == sorted(test["train-easy"])
    assert [s.name for s in make(tmp_path).stages] == ["control", "easy"]


def test_several_modules_in_one_network(tmp_path: Path) -> None:
    """Trained together, module after module, padded to the widest; measured together and each; `extrapolate` where there is one."""
    wanted = {"sort": ("Sort these, please: what is", 1), "collect": ("Collect", 2)}
    by_module = {m: by_hand(write_questions(tmp_path, m, *how)) for m, how in wanted.items()}
    task = make(tmp_path, module=["comparison__sort", "collect"])
    assert task.options.module == ("sort", "collect")
    each = [f"{s}_{m}" for m in wanted for s in ("iid", "easy", "hard")]
    assert task.splits == ("iid", "easy", "hard", "interpolate", "extrapolate", *each)
    levels = ("train-easy", "train-medium", "train-hard")
    assert task.decode(task.train_set(None)) == [q for m in wanted for level in levels for q in by_module[m][0][level]]
    assert task.decode(task.train_set("easy")) == [q for m in wanted for q in by_module[m][0]["train-easy"]]
    expected = {
        "iid": [q for m in wanted for level in levels for q in by_module[m][1][level]],
        "interpolate": [q for m in wanted for q in by_module[m][1]["interpolate"]],
        "extrapolate": by_module["sort"][1]["extrapolate"],
        "hard_collect": by_module["collect"][1]["train-hard"],
        "iid_sort": [q for level in levels for q in by_module["sort"][1][level]],
    }
    for split, questions in expected.items():
        assert sorted(task.decode(task.test_set(split))) == sorted(questions), split
    written = {"Sort these, please: what is", "Collect", " + ?", "0123456789."}
    assert task.shape()["source_tokens"] == ("<end>", *sorted(set("".join(written))))


def test_modules_with_other_characters_share_one_vocabulary() -> None:
    """Generated questions have a character set per module: tokens are numbered anew, so that the text stays what it was."""
    from modhook_tasks.mathematics.index import Index, encode, with_the_same_characters

    rows = {"a": [(b"ca b", b"b"), (b"a", b"cc")], "b": [(b"zb1", b"1 ")]}
    characters = {"a": " abc", "b": " 1bz"}
    indices = {}
    for name, pairs in rows.items():
        tensors = {k: torch.from_numpy(v) for k, v in encode(pairs, characters[name], (4, 2)).items()}
        indices[name] = Index(characters[name], tensors, (len(pairs), 0, 0), {"interpolate": tensors})
    made = with_the_same_characters(indices)
    for name, pairs in rows.items():
        expected = encode(pairs, " 1abcz", (4, 2))
        for found in (made[name].train, made[name].test["interpolate"]):
            assert made[name].characters == " 1abcz"
            assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in expected.items()}
            assert found["source"].dtype == torch.uint8
