"""Files of behaviours: what is read from JSONL and CSV, and every mistake as one sentence with file and line, nothing written."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from modhook import UserError, open_cube
from modhook.cli import main
from modhook.study import load
from modhook_tasks.behaviours.rows import Row, divided, read_rows
from modhook_tasks.behaviours.task import Behaviours, BehavioursOptions

GOOD = {"prompt": "the dog", "answer": " runs", "contrast": " run", "function": "number"}


def lines(*rows: Any) -> bytes:
    """Return a JSONL file of rows."""
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def without(key: str, **more: str) -> dict[str, str]:
    """Return the good row without a field, and with others."""
    return {k: v for k, v in GOOD.items() if k != key} | more


@pytest.mark.parametrize(
    ("data", "line", "sentence"),
    [
        (lines(GOOD, without("answer")), 2, "'answer' is missing"),
        (lines(GOOD, "", without("prompt", promt="x")), 3, "'prompt' is missing (did you mean 'promt'?)"),
        (lines(GOOD, GOOD | {"answer": ""}), 2, "'answer' is empty"),
        (lines(GOOD | {"prompt": ""}), 1, "'prompt' is empty"),
        (lines(GOOD | {"prompt": 3}), 1, "'prompt' must be a text in quotes, not 3"),
        (lines(GOOD | {"answer": None}), 1, "'answer' must be a text in quotes, not null"),
        (lines(GOOD | {"contrast": ""}), 1, "'contrast' is empty; leave it out"),
        (lines(GOOD | {"contrast": " runs"}), 1, "contrast is the answer itself, ' runs'"),
        (lines(GOOD | {"corrupted": "the dog"}), 1, "corrupted is the prompt itself"),
        (lines(GOOD, '{"prompt": "a", "answer": " b", "answer": " c"}'), 2, "it has 'answer' twice"),
        (lines(GOOD | {"split": "trian"}), 1, "unknown split 'trian' (did you mean 'train'?); it is one of 'train', 'test'"),
        (lines(without("contrast", contrst=" run")), 1, "there is no field 'contrst' (did you mean 'contrast'?)"),
        (lines(GOOD, without("split"), GOOD), 2, "it says the same as line 1"),
        (lines(GOOD, GOOD | {"prompt": "a", "split": "test"}), 1, "'split' is missing, but line 2 of the same function has it"),
        (lines(GOOD | {"corrupted": "x"}, GOOD | {"prompt": "a"}), 2, "'corrupted' is missing, but line 1 of the same function"),
        (lines(GOOD | {"function": "all"}), 1, "a function cannot be called 'all'"),
        (lines(GOOD | {"function": "a/b"}), 1, "a function cannot be called 'a/b'"),
        (lines(GOOD, GOOD | {"prompt": "a", "function": "Number"}), 2, "the function 'Number' is called 'number' in line 1"),
        (lines(GOOD, "{'prompt': 1}"), 2, "this is no JSON"),
        (lines(GOOD, "[" * 100_000), 2, "this is no JSON"),
        (lines(GOOD, '"text"'), 2, "a line must be an object {...}, not \"text\""),
        (lines(GOOD) + b'\n{"prompt": "caf\xe9"}', 2, "this is not UTF-8 text"),
        (lines(GOOD), 1, "it is the only line of the function 'number'"),
        (lines(GOOD | {"split": "test"}), 1, "the function 'number' has no line of split 'train'"),
    ],
)
def test_mistakes_of_jsonl(tmp_path: Path, data: bytes, line: int, sentence: str) -> None:
    """Each is one sentence that begins with the file and the line."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(data)
    with pytest.raises(UserError) as caught:
        divided(file, read_rows(file), 0.2)
    assert str(caught.value).startswith(f"{file}, line {line}: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("prompt,contrast\na,b\n", 1, "the header names no column 'answer'"),
        ("prompt,awnser\na,b\n", 1, "the header names no column 'answer' (did you mean 'awnser'?)"),
        ("prompt,answer,prompt\na,b,c\n", 1, "the header names the column 'prompt' twice"),
        ('prompt,answer\n"a\nb", c\nd\n', 4, "it has 1 cells, but the header names 2 columns; leave cells empty"),
        ("prompt,answer\na,b,c\n", 2, "it has 3 cells, but the header names 2 columns; quote a text"),
        ('prompt,answer\n"a\n\nb",\n', 2, "'answer' is empty"),
        ("prompt,answer\n,\n", 2, "'prompt' is empty"),
        ('prompt,answer\n"a, b\n', 2, "this is no CSV"),
        ("prompt,answer,split\na, b,dev\n", 2, "unknown split 'dev'"),
    ],
)
def test_mistakes_of_csv(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    """So are those of a table, also behind a cell of several lines."""
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_rows(file)
    assert str(caught.value).startswith(f"{file}, line {line}: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("rows.jsonl", b"\n \n", "holds no items"),
        ("rows.csv", b"prompt,answer\n", "holds no items"),
        ("rows.txt", b"x", "is JSONL or CSV, by its name"),
        ("none.jsonl", None, "there is no file"),
        ("folder.jsonl", "folder", "cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, data: bytes | str | None, sentence: str) -> None:
    """What is empty, missing, a folder or of another kind is said; a missing one with a near miss."""
    (tmp_path / "nine.jsonl").write_text("x")
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    elif data:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=sentence) as caught:
        read_rows(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    if data is None:
        assert "did you mean" in str(caught.value)


def test_both_kinds_say_the_same(tmp_path: Path) -> None:
    """JSONL with a byte-order mark and unknown notes, and CSV with empty cells and several lines in one, give the same rows."""
    rows = [GOOD | {"note": 1}, without("contrast", prompt='two, "2"\nlines', split=None)]
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(rows[0], "", rows[1]) + b"\r\n")
    (tmp_path / "r.csv").write_bytes(
        b'note,function,prompt,answer,contrast,split\r\n1,number,the dog, runs, run,\r\n\r\n,number,"two, ""2""\nlines", runs,,\r\n'
    )
    expected = [Row(1, "the dog", " runs", " run", None, "number"), Row(3, 'two, "2"\nlines', " runs", None, None, "number")]
    assert read_rows(tmp_path / "r.jsonl") == expected
    assert [(r.line, r) for r in read_rows(tmp_path / "r.csv")] == [
        (line, Row(line, *(getattr(e, n) for n in ("prompt", "answer", "contrast", "corrupted", "function"))))
        for line, e in zip((2, 4), expected, strict=True)
    ]


def test_lines_that_test() -> None:
    """Where no split is given a fifth is held out, never all and never none, the same at every call; given splits are kept."""
    path = Path("x.jsonl")
    free = [Row(i, f"p{i}", "a") for i in range(1, 13)]
    given = [Row(20 + i, f"q{i}", "a", function="given", split=("train", "test")[i % 2]) for i in range(4)]
    found = divided(path, [*free, *given], 0.2)
    assert list(found) == ["behaviour", "given"]
    assert [len(found["behaviour"][split]) for split in ("train", "test")] == [10, 2]
    assert sorted(r.line for part in found["behaviour"].values() for r in part) == list(range(1, 13))
    assert [[r.line for r in found["given"][split]] for split in ("train", "test")] == [[20, 22], [21, 23]]
    assert divided(path, [*free, *given], 0.2) == found
    for share, count in ((0.01, 1), (0.99, 11)):
        assert len(divided(path, free, share)["behaviour"]["test"]) == count


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tokenizer": " "}, "tokenizer is empty"),
        ({"tokenizer": "./nowhere"}, "there is no folder"),
        ({"functions": ("nubmer",)}, r"no such function \(did you mean 'number'\?\)"),
        ({"functions": ("number", "number")}, "a function twice"),
        ({"text": "t.txt", "kind": "mask"}, "leave text out"),
        ({"labels": ("a", "b")}, "leave labels out"),
        ({"padding": "left", "kind": "mask"}, "leave it out"),
        ({"objective": "logit_difference", "functions": ("bare",)}, r"line \d: contrast is missing, which objective"),
        ({"text": "none.txt"}, "there is no file"),
        ({"text": "empty.txt"}, "holds no text"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str) -> None:
    """They are refused by the constructor, and so by `modhook check`."""
    monkeypatch.chdir(tmp_path)
    bare = [without("contrast", function="bare", prompt=p) for p in "abc"]
    Path("r.jsonl").write_bytes(lines(*(GOOD | {"prompt": p} for p in "abc"), *bare))
    Path("empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match=sentence):
        Behaviours(BehavioursOptions(**{"file": "r.jsonl", "tokenizer": "words", **options}))


NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, head=True, size=24):
        super().__init__()
        self.embed, self.gru = nn.Embedding(size, 12), nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(12, size) if head else None

    def forward(self, ids):
        found = self.gru(self.embed(ids))[0]
        return found if self.head is None else self.head(found)
"""
STUDY = """
[study]
name = "own"
[task]
name = "behaviours"
file = "rows.csv"
text = "text.txt"
tokenizer = "words"
control = true
[model]
name = "net.py:Net"
[train]
steps = 60
batch = 16
lr = 0.02
validate_every = 30
[masks]
steps = 4
samples = 2
batch = 8
lr = 0.8
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study of a network in a file and two functions in a CSV file, in a folder of its own."""
    folder = tmp_path / "own"
    folder.mkdir()
    nouns = {"dog": "runs", "dogs": "run", "cat": "sits", "cats": "sit"}
    other = {"runs": "run", "run": "runs", "sits": "sit", "sit": "sits"}
    rows = [f"the {size} {noun}, {verb}, {other[verb]},number" for noun, verb in nouns.items() for size in ("big", "red", "old")]
    rows += [f"{a} {b} ; {a}, {b} ;,,copy" for a in "abc" for b in "abc" if a != b]
    (folder / "rows.csv").write_text("\n".join(["prompt,answer,contrast,function", *rows]))
    texts = [f"the {size} {noun} {verb}" for noun, verb in nouns.items() for size in ("big", "red", "old")]
    (folder / "text.txt").write_text("\n".join([*texts, *(f"{a} {b} ; {a} {b} ;" for a in "abc" for b in "abc")]))
    (folder / "net.py").write_text(NETWORK)
    (folder / "own.toml").write_text(STUDY)
    return folder / "own.toml"


def run(*arguments: str | Path) -> Any:
    """Run the command line here, and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_whole_study(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base training on texts, a control and one mask per function: all scores are there, the unmasked network's are its own."""
    monkeypatch.chdir(tmp_path)
    assert run("run", study, "--out", "out") == 0
    with open_cube("out/own.zarr") as cube:
        scores = cube["scores"].to_dataset().sel(seed=1).load()
        learned = float(cube["history/train_subset_accuracy"].sel(seed=1)[-1])
    assert list(scores["stage"].values) == ["unmasked", "control", "number", "copy"]
    assert list(scores["split"].values) == ["all", "number", "copy"]
    whole = scores.sel(stage="unmasked")
    assert float(whole["kl"].max()) == 0
    assert whole["faithfulness"].values == pytest.approx(1)
    assert bool(scores.notnull().to_array().all())
    assert learned > 0.5
    monkeypatch.chdir(study.parent)
    task = Behaviours(load(study).task.options)
    assert re.fullmatch(r"prompts such as 'the \w+ dog', to be answered by 'runs', and not 'run'", task.stages[1].doc)
    assert all(data["ids"].dtype == torch.int64 for data in (task.train_set("number"), task.test_set("all")))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("text.txt", None, "one"), "line 22: a text of one token"),
        (("rows.csv", None, "the dog,s,,number"), "line 20: the answer 's' is no continuation"),
        (("rows.csv", None, " , x,,number"), "line 20: the prompt has no token"),
        (("rows.csv", None, "the dog, ,,number"), "line 20: the answer ' ' adds no token to the prompt"),
        (("own.toml", 'py:Net"', 'py:Net"\nsize = 5'), "rows.csv: the network Net has no embedding for some of the"),
        (("own.toml", 'py:Net"', 'py:Net"\nhead = false'), "rows.csv: the network Net has no head for these answers"),
        (("own.toml", 'name = "net.py:Net"', 'name = "language_model"'), "give either pretrained"),
        (("own.toml", 'name = "net.py:Net"', 'name = "language_model"\nconfig = { n_layer = 1 }'), "config lacks model_type"),
        (("own.toml", 'name = "net.py:Net"', 'name = "language_model"\npretrained = "./none"'), "there is no folder"),
        (("own.toml", '"words"', '"words"\nlength = 4'), "line 14: it has 5 tokens, more than the 4 of task.length"),
    ],
)
def test_what_is_refused_writes_nothing(
    study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: tuple[str, str | None, str], sentence: str
) -> None:
    """`run` ends with exit code 2 and one sentence that names file and line, and leaves no cube."""
    name, old, new = change
    file = study.parent / name
    text = file.read_text()
    file.write_text(f"{text}\n{new}" if old is None else text.replace(old, new))
    assert run("run", study, "--out", tmp_path / "out") == 2
    assert sentence in capfd.readouterr().err
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_the_example_is_what_its_generator_writes() -> None:
    """The files of the study lm_example are those of lm_example/generate.py, and no tested prompt begins a text of its training."""
    folder = Path(__file__).parents[2] / "studies" / "lm_example"
    files = runpy.run_path(str(folder / "generate.py"))["files"]()
    assert sorted(files) == ["behaviours.jsonl", "text.txt"]
    for name, text in files.items():
        assert (folder / name).read_text(encoding="utf-8") == text
    tested = [row for row in read_rows(folder / "behaviours.jsonl") if row.split == "test"]
    texts = [line.split() for line in files["text.txt"].splitlines()]
    beginnings = {tuple(text[:n]) for text in texts for n in range(1, len(text) + 1)}
    assert {row.function for row in tested} == {"agreement", "copying", "brackets"}
    assert not [row for row in tested if tuple(row.prompt.split()) in beginnings]
