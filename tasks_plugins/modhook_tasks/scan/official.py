"""Reads SCAN from its authors' files: one `IN: command OUT: actions` per line."""

from __future__ import annotations

from pathlib import Path

from modhook.errors import DataError, near_miss
from modhook_tasks.scan.grammar import ACTIONS, WORDS, Example
from modhook_tasks.scan.splits import Split

_FOLDERS = {"simple": "simple_split", "length": "length_split", "jump": "add_prim_split", "turn_left": "add_prim_split"}
_ENDINGS = {"simple": "simple", "length": "length", "jump": "addprim_jump", "turn_left": "addprim_turn_left"}


def file_names(split: str) -> tuple[str, str]:
    """Return the train and the test file of a split, relative to the official folder."""
    folder, ending = _FOLDERS[split], _ENDINGS[split]
    return f"{folder}/tasks_train_{ending}.txt", f"{folder}/tasks_test_{ending}.txt"


def read_split(folder: Path, split: str) -> Split:
    """Read one split in the order of its files. Raises `DataError` naming the file and the line."""
    train, test = file_names(split)
    return Split(train=read_file(folder / train), test=read_file(folder / test))


def read_file(path: Path) -> list[Example]:
    """Read one official file. Raises `DataError` naming the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the folder must have the layout of the official repository.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    lines = enumerate(text.splitlines(), start=1)
    found = [_example(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} holds no examples.")
    return found


def _example(line: str, where: str) -> Example:
    left, separator, right = line.strip().partition(" OUT: ")
    if not (separator and left.startswith("IN: ")):
        raise DataError(f"{where}: expected 'IN: command OUT: actions', found {line.strip()[:80]!r}.")
    words, actions = left.removeprefix("IN: ").split(), tuple(right.split())
    for kind, tokens, valid in (("word", words, WORDS), ("action", actions, ACTIONS)):
        if not tokens:
            raise DataError(f"{where}: there is no {kind}.")
        for token in tokens:
            if token not in valid:
                hint = f"{near_miss(token, valid)}; SCAN has {', '.join(valid)}."
                raise DataError(f"{where}: unknown {kind} {token!r}{hint}")
    return Example(" ".join(words), actions)
