"""Loads a study file: reads, applies a variant and `--set`, checks everything, and reports all mistakes at once."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from modhook.errors import StudyError
from modhook.plugin.manager import Plugins
from modhook.plugin.manager import plugins as installed
from modhook.study.build import Built, build, check_sections
from modhook.study.grid import check_sweep, expand
from modhook.study.problems import Problems
from modhook.study.source import read
from modhook.study.study import Study
from modhook.study.tables import apply_override, apply_variant, draft
from modhook.values.bounds import PLAIN_NAME, Rejected, check_bounds
from modhook.values.text import written


@attrs.frozen
class Checked:
    """What `check` found about one variant (None: the study as the file has it): a study, or its problems."""

    variant: str | None
    study: Study | None
    problems: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str],
    variant: str | None = None,
    overrides: Sequence[str] = (),
    *,
    plugins: Plugins | None = None,
) -> Study:
    """Return the checked study of a file.

    Args:
        path: the study file.
        variant: a name under `[variants]`, whose values replace the file's.
        overrides: texts `key=value` (`masks.steps=100`), applied last; a value is read as TOML, or else as a text.
        plugins: what the study can name; default: everything installed.

    Raises:
        StudyError: the file cannot be read, or the study has mistakes; `problems` has all of them.
    """
    raw = read(path)
    study, problems = _assemble(raw, variant, overrides, plugins or installed(), pathlib.Path(path))
    if study is None:
        raise StudyError(_where(path, variant), problems.lines()) from problems.cause
    return study


def check(
    path: str | os.PathLike[str],
    variants: Sequence[str] | Literal["all"] = "all",
    overrides: Sequence[str] = (),
    *,
    plugins: Plugins | None = None,
) -> list[Checked]:
    """Check a file as it stands and under variants, by default all of its own; never raises for a mistake in it.

    One result per variant, the file as it stands (None) first; a file that cannot be read has one result.
    """
    try:
        raw = read(path)
    except StudyError as error:
        return [Checked(None, None, error.problems)]
    if variants == "all":
        table = raw.get("variants", {})
        variants = list(table) if isinstance(table, Mapping) else []
    plugins = plugins or installed()
    results = []
    for variant in (None, *variants):
        study, problems = _assemble(raw, variant, overrides, plugins, pathlib.Path(path))
        results.append(Checked(variant, study, problems.lines()))
    return results


def restore(table: Mapping[str, Any], overrides: Sequence[str] = (), *, plugins: Plugins | None = None) -> Study:
    """Return the study of a plain table made by `resolved`, as it stands in a cube.

    Files that it names need not exist, and no code that it names is imported, installed plugins aside, unless `plugins` may
    (`Plugins.beside`): a cube may come from anybody. Networks and analyses of that kind are taken as they are named.

    `overrides` are texts `key=value` as in `load`.

    Raises:
        StudyError: the table is not that of a study, or names plugins that are not installed.
    """
    study, problems = _assemble(table, None, overrides, plugins or installed(), None)
    if study is None:
        raise StudyError("the study in the cube", problems.lines()) from problems.cause
    return study


def _where(path: str | os.PathLike[str], variant: str | None) -> str:
    return f"{os.fspath(path)} [variants.{variant}]" if variant else os.fspath(path)


def _assemble(
    raw: Mapping[str, Any],
    variant: str | None,
    overrides: Sequence[str],
    plugins: Plugins,
    file: pathlib.Path | None,
) -> tuple[Study | None, Problems]:
    """Return the study of a file's table, or None, and the problems found."""
    made = draft(raw)
    if variant is not None:
        apply_variant(made, raw.get("variants", {}), variant)
    for override in overrides:
        apply_override(made, override)
    problems = Problems(made.origins)
    for path, text in made.mistakes:
        problems.add(path, text)
    check_sections(made.table, problems)
    _check_variants(raw.get("variants", {}), problems)
    sweep = check_sweep(made.sweep, problems)

    # Code that the user's own file names is theirs to run; what a cube names is not.
    plugins = plugins if file is None else plugins.beside(file.parent)

    def builder(table: Mapping[str, Any], found: Problems) -> Built | None:
        return build(table, plugins, found, file, variant)

    study = expand(made.table, sweep, builder, problems)
    return (None if problems else study), problems


def _check_variants(variants: Any, problems: Problems) -> None:
    if not isinstance(variants, Mapping):
        problems.add(("variants",), f"{written(variants)} is not a table; write [variants.quick]")
        return
    for name, table in variants.items():
        if not isinstance(table, Mapping):
            problems.add(("variants", name), f"{written(table)} is not a table; write [variants.{name}]")
        try:
            check_bounds(name, [PLAIN_NAME])
        except Rejected as error:
            problems.add(("variants", name), f"a variant's name {error}")
