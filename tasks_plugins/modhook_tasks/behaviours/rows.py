"""Reads behaviours: a JSONL or CSV file, one item per line. Every mistake is one sentence with the file and the line."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from modhook import UserError
from modhook.errors import listing, near_file, near_miss

NEEDED = ("prompt", "answer")
OPTIONAL = ("contrast", "corrupted", "function", "split")
FIELDS = (*NEEDED, *OPTIONAL)
SPLITS = ("train", "test")
UNNAMED = "behaviour"
"""What the function of a file is called that names none."""
_TAKEN = ("unmasked", "control", "all", "train")
_ORDER = 0x5EED_0001
"""Seeds the choice of test items where the file makes none; the same for every study."""


@attrs.frozen
class Row:
    """One item of a file. `line` is where it begins, from 1."""

    line: int
    prompt: str
    answer: str
    contrast: str | None = None
    corrupted: str | None = None
    function: str = UNNAMED
    split: str | None = None


def wrong(path: Path, line: int, what: str) -> UserError:
    """Return the error of one line."""
    return UserError(f"{path}, line {line}: {what}.")


def read_rows(path: Path) -> list[Row]:
    """Return the items of a file, in its order. Raises `UserError`: nothing of a file with a mistake is used."""
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".csv"):
        raise UserError(f"{path}: a file of behaviours is JSONL or CSV, by its name; call it .jsonl or .csv.")
    text = read_text(path, (".jsonl", ".csv"))
    found = list(_json_rows(path, text) if suffix == ".jsonl" else _csv_rows(path, text))
    if not found:
        raise UserError(f"{path} holds no items; write one per line, with {' and '.join(NEEDED)}.")
    _check_together(path, found)
    return found


def read_text(path: Path, suffixes: Sequence[str] = ()) -> str:
    """Return a file's text, line ends as they are. Raises `UserError` where there is none, or it is not UTF-8."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = near_file(path, suffixes)
        raise UserError(f"there is no file {str(path)!r}{near}; its name is relative to the study file.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise wrong(path, line, "this is not UTF-8 text; save the file as UTF-8") from None


class _Pairs(dict[str, Any]):
    """An object of JSON that remembers every key it was given: JSON takes the last of several that are one."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.keys_given = [key for key, _ in pairs]


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number too long"
            raise wrong(path, number, f"this is no JSON ({what}); write one object per line") from None
        if not isinstance(found, _Pairs):
            raise wrong(path, number, f"a line must be an object {{...}}, not {_shown(found)}")
        if twice := [key for key in FIELDS if found.keys_given.count(key) > 1]:
            raise wrong(path, number, f"it has {twice[0]!r} twice; keep one of them")
        given = {key: value for key, value in found.items() if value is not None or key in NEEDED}
        for key, value in given.items():
            if key in FIELDS and not isinstance(value, str):
                raise wrong(path, number, f"{key!r} must be a text in quotes, not {_shown(value)}")
            if key in OPTIONAL and value == "":
                raise wrong(path, number, f"{key!r} is empty; leave it out where there is none")
        yield _row(path, number, given)


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if len(cells) <= 1 and not "".join(cells).strip():  # an empty line
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(path, number, header)
            elif len(cells) != len(header):
                hint = "quote a text that holds a comma" if len(cells) > len(header) else "leave cells empty where there is nothing"
                what = f"it has {len(cells)} cells, but the header names {len(header)} columns; {hint}"
                raise wrong(path, number, what)
            else:
                pairs = zip(header, cells, strict=True)
                yield _row(path, number, {k: v for k, v in pairs if v != "" or k in NEEDED})
    except csv.Error as error:
        raise wrong(path, reader.line_num, f"this is no CSV ({error})") from None


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    for name in NEEDED:
        if name not in header:
            hint = near_miss(name, header) or f"; it has {listing(map(repr, header))}"
            raise wrong(path, line, f"the header names no column {name!r}{hint}")
    if twice := [name for name in header if name in FIELDS and header.count(name) > 1]:
        raise wrong(path, line, f"the header names the column {twice[0]!r} twice")


def _row(path: Path, line: int, given: Mapping[str, Any]) -> Row:
    """Return one item of its fields; others than those that are known are notes, unless they are nearly one."""
    unknown = [key for key in given if key not in FIELDS]
    for name in NEEDED:
        if name not in given:
            raise wrong(path, line, f"{name!r} is missing{near_miss(name, unknown)}")
        if given[name] == "":
            raise wrong(path, line, f"{name!r} is empty")
    for key in unknown:
        if near := near_miss(key, [name for name in OPTIONAL if name not in given]):
            raise wrong(path, line, f"there is no field {key!r}{near}")
    row = Row(line, **{key: given[key] for key in FIELDS if key in given})
    if row.contrast == row.answer:
        raise wrong(path, line, f"contrast is the answer itself, {row.answer!r}; give a wrong answer, or leave contrast out")
    if row.corrupted == row.prompt:
        raise wrong(path, line, "corrupted is the prompt itself; give one after which the answer is not the better one, or leave it out")
    if row.split is not None and row.split not in SPLITS:
        hint = near_miss(row.split, SPLITS)
        raise wrong(path, line, f"unknown split {row.split!r}{hint}; it is one of {', '.join(map(repr, SPLITS))}")
    return attrs.evolve(row, function=_named(path, line, row.function))


def _named(path: Path, line: int, name: str) -> str:
    """Return a function's name as the cube has it. Raises `UserError` for one that nothing can have."""
    found = " ".join(unicodedata.normalize("NFKC", name).split())
    bad = any(unicodedata.category(sign)[0] == "C" for sign in found) or "(" in found or "/" in found
    if not found or bad or len(found) > 100 or found.casefold() in _TAKEN:
        what = (
            f"a function cannot be called {name!r}: names are 1 to 100 signs without brackets and slashes, and "
            f"{', '.join(map(repr, _TAKEN))} mean something else"
        )
        raise wrong(path, line, what)
    return found


def _check_together(path: Path, rows: Sequence[Row]) -> None:
    """Refuse lines that are there twice, and functions of which some lines lack what the others have."""
    first: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = (row.prompt, row.answer, row.contrast, row.corrupted, row.function)
        if (line := first.setdefault(key, row.line)) != row.line:
            raise wrong(path, row.line, f"it says the same as line {line}; keep one of them")
    names: dict[str, Row] = {}
    for row in rows:
        other = names.setdefault(row.function.casefold(), row)
        if other.function != row.function:
            raise wrong(path, row.line, f"the function {row.function!r} is called {other.function!r} in line {other.line}")
        for field in ("corrupted", "split"):
            if (getattr(row, field) is None) != (getattr(other, field) is None):
                without, has = (row, other) if getattr(row, field) is None else (other, row)
                what = f"{field!r} is missing, but line {has.line} of the same function has it; give it in all of them, or in none"
                raise wrong(path, without.line, what)


def divided(path: Path, rows: Iterable[Row], held_out: float) -> dict[str, dict[str, list[Row]]]:
    """Return {function: {"train": rows, "test": rows}}, functions in the order of the file.

    A function whose lines name no split has `held_out` of them, at least one, drawn for testing, the same in every study.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.function, {split: [] for split in (*SPLITS, "")})[row.split or ""].append(row)
    for name, parts in found.items():
        free = parts.pop("")
        if len(free) == 1:
            what = f"it is the only line of the function {name!r}, which needs some to learn from and others to test"
            raise wrong(path, free[0].line, what)
        if free:
            count = min(max(math.floor(held_out * len(free) + 0.5), 1), len(free) - 1)
            chosen = set(np.random.RandomState(_ORDER).permutation(len(free))[:count].tolist())
            parts["train"] = [row for i, row in enumerate(free) if i not in chosen]
            parts["test"] = [row for i, row in enumerate(free) if i in chosen]
        for split, there in parts.items():
            if not there:
                other = next(iter(parts["test" if split == "train" else "train"]))
                raise wrong(path, other.line, f"the function {name!r} has no line of split {split!r}, only others like this one")
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
