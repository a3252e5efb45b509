"""Reads a study file."""

from __future__ import annotations

import os
import pathlib
import tomllib
from typing import Any

from modhook.errors import StudyError, near_file, near_miss

_DEEPEST = 50
_TOO_DEEP = f"tables and lists are nested too deeply; at most {_DEEPEST} levels are allowed"


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a TOML file's table. Raises `StudyError` that names the file, and the line where there is one."""
    where = os.fspath(path)
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")  # some editors of Windows write a byte order mark
    except FileNotFoundError:
        near = near_file(path, (".toml",), ("", "studies"))
        near = near or near_miss(where, shipped_files())
        hint = near or "; modhook list studies shows those that come with modhook, which are found by their names"
        raise StudyError(where, [f"there is no such file{hint}"]) from None
    except IsADirectoryError:
        raise StudyError(where, ["this is a folder; name the study file in it"]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise StudyError(where, [f"not UTF-8 text (at line {line}); save the file as UTF-8"]) from None
    except (OSError, ValueError) as error:
        raise StudyError(where, [f"cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise StudyError(where, [_TOO_DEEP]) from None
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        raise StudyError(where, [f"not valid TOML: {error}"]) from None
    if _depth(table) > _DEEPEST:
        raise StudyError(where, [_TOO_DEEP])
    return table


def shipped_files() -> dict[str, pathlib.Path]:
    """Return {name: file} of the studies that come with modhook: of a checkout, or those that its wheel brings."""
    home = pathlib.Path(__file__).resolve().parents[2]
    folder = home / "studies" if (home / "pyproject.toml").is_file() else home / "modhook_studies"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def _depth(value: Any) -> int:
    """Return how deep tables and lists are nested, without recursion: dotted keys can nest without end."""
    level, depth = [value], 0
    while level := [
        inner for v in level if isinstance(v, dict | list) for inner in (v.values() if isinstance(v, dict) else v)
    ]:
        depth += 1
    return depth
