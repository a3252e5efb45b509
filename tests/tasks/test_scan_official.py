"""Reading the official SCAN files, and refusing what is not one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modhook
from modhook.errors import DataError
from modhook_tasks.scan.grammar import Example
from modhook_tasks.scan.official import file_names, read_file
from modhook_tasks.scan.splits import SPLITS, generated
from modhook_tasks.scan.task import Scan, ScanOptions

ADDED = "add_prim_split/tasks_{}_addprim_{}.txt"
LAYOUT = {
    "simple": ("simple_split/tasks_train_simple.txt", "simple_split/tasks_test_simple.txt"),
    "length": ("length_split/tasks_train_length.txt", "length_split/tasks_test_length.txt"),
    "jump": (ADDED.format("train", "jump"), ADDED.format("test", "jump")),
    "turn_left": (ADDED.format("train", "turn_left"), ADDED.format("test", "turn_left")),
}


def write(path: Path, examples: list[Example]) -> None:
    """Write examples as their authors do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"IN: {e.command} OUT: {' '.join(e.actions)}\n" for e in examples))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in the official layout."""
    for name, files in LAYOUT.items():
        for file, part in zip(files, (generated(name).train, generated(name).test), strict=True):
            write(tmp_path / file, list(part))
    return tmp_path


def test_file_names_are_the_official_ones() -> None:
    """A folder fresh from the authors' repository is found as it is."""
    assert {name: file_names(name) for name in SPLITS} == LAYOUT


def test_generated_and_official_data_are_equal(folder: Path) -> None:
    """Reading the files gives the tensors that generating gives."""
    read, made = Scan(ScanOptions(source="folder", folder=str(folder))), Scan(ScanOptions())
    read.load()
    made.load()
    pairs = [(read.test_set(name), made.test_set(name)) for name in SPLITS]
    pairs += [(read.train_set(stage.name), made.train_set(stage.name)) for stage in made.stages]
    for got, expected in pairs:
        assert expected.keys() == got.keys()
        for key in expected:
            torch.testing.assert_close(got[key], expected[key], rtol=0, atol=0)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A folder without the files says which one is missing."""
    task = Scan(ScanOptions(splits=("simple",), source="folder", folder=str(tmp_path)))
    with pytest.raises(DataError, match=r"tasks_train_simple\.txt is missing"):
        task.load()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jump twice", "expected 'IN: command OUT: actions'"),
        ("IN: jump OUT:", "expected 'IN: command OUT: actions'"),
        ("IN:  OUT: I_JUMP", "there is no word"),
        ("IN: jmp OUT: I_JUMP", r"unknown word 'jmp' \(did you mean 'jump'\?\)"),
        ("IN: jump OUT: I_JUMPS", r"unknown action 'I_JUMPS' \(did you mean 'I_JUMP'\?\)"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """A damaged file is refused with its line number."""
    path = tmp_path / "tasks.txt"
    path.write_text(f"IN: walk OUT: I_WALK\n{line}\n")
    with pytest.raises(DataError, match=rf"tasks\.txt, line 2: {message}"):
        read_file(path)


def test_empty_and_binary_files_are_refused(tmp_path: Path) -> None:
    """A file without one example is an error and not an empty split."""
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no examples"):
        read_file(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "binary.txt")


def test_folder_and_source_must_agree() -> None:
    """Neither a forgotten folder nor a forgotten source is guessed."""
    with pytest.raises(modhook.UserError, match="folder is not set"):
        ScanOptions(source="folder")
    with pytest.raises(modhook.UserError, match="set source to 'folder'"):
        ScanOptions(folder="data")
    with pytest.raises(modhook.UserError, match="'generated' or 'folder'"):
        ScanOptions(source="web")  # type: ignore[arg-type]
