"""Structures one table into one attrs class and turns everything that is wrong into problems with paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import attrs
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

from modhook.errors import StudyError, UserError, listing, near_miss
from modhook.study.problems import Problem, Problems
from modhook.study.strict import converter
from modhook.values.bounds import Rejected
from modhook.values.text import Path, dotted

T = TypeVar("T")


@cache
def _converter() -> Converter:
    return converter()


def structure(options_class: type[T], table: Any, path: str | Path = (), *, where: str | None = None) -> T:
    """Return an instance of a frozen attrs class made from a plain table.

    Args:
        options_class: the class; its annotations say what is valid.
        table: a plain dictionary, as `tomllib` returns it.
        path: where the table stands in the study, for messages (`"task"`).
        where: the file, for messages.

    Raises:
        StudyError: the table has mistakes; all of them are listed.
    """
    place = (path,) if isinstance(path, str) else path
    problems = Problems()
    made = structured(options_class, table, place, problems)
    if made is None or problems:
        raise StudyError(where or dotted(place) or options_class.__name__, problems.lines())
    return made


def structured(options_class: type[T], table: Any, path: Path, problems: Problems) -> T | None:
    """Like `structure`, but add the mistakes to `problems` and return None."""
    if not attrs.has(options_class):
        problems.add(path, f"the options class {options_class!r} is no attrs class (a mistake of its plugin)")
        return None
    try:
        hook = _converter().get_structure_hook(options_class)
    except Exception as error:
        problems.add(
            path,
            f"the options class {options_class.__name__} cannot be read: {_said(error)} (a mistake of its plugin)",
        )
        problems.cause = error
        return None
    made: T | None = structured_by(lambda value: hook(value, options_class), table, path, problems)
    return made


def structured_by(hook: Callable[[Any], T], value: Any, path: Path, problems: Problems) -> T | None:
    """Structure one value by one strict hook, add its mistakes to `problems`, and return None if there were any."""
    try:
        return hook(value)
    except Exception as error:
        for problem in _walk(error, path):
            problems.add(problem.path, problem.text, known=problem.known)
        return None


def keys(options_class: type) -> list[str]:
    """Return the keys that a table of this class may have, in order."""
    return [field.name for field in attrs.fields(options_class) if field.init]


def unknown_key(key: str, valid: list[str]) -> str:
    """Say that a key is unknown, with the nearest valid one, or all of them."""
    hint = near_miss(key, valid) or (f"; valid here: {listing(valid)}" if valid else "; nothing can be set here")
    return f"unknown key{hint}"


def _walk(error: BaseException, path: Path) -> Iterator[Problem]:
    """Yield the problems of an exception (a tree of exceptions, from cattrs), each at its own path."""
    path = path + _step(error)
    if isinstance(error, ForbiddenExtraKeysError):
        valid = keys(error.cl)
        for key in sorted(error.extra_fields):
            yield Problem((*path, key), unknown_key(key, valid), known=False)
    elif isinstance(error, BaseValidationError):
        for child in error.exceptions:
            yield from _walk(child, path)
    elif isinstance(error, KeyError) and path and error.args == (path[-1],):
        yield Problem(path, "missing, and it has no default")
    elif isinstance(error, Rejected | UserError):
        yield Problem(path, str(error))
    else:
        yield Problem(path, _said(error))


def _step(error: BaseException) -> Path:
    """Return the part of the path that cattrs noted on an exception, if it noted one."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _said(error: BaseException) -> str:
    """Return an exception's own words; attrs' validators put further objects beside them."""
    words = str(error.args[0]) if error.args else ""
    if isinstance(error, ValueError | TypeError) and words:
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
