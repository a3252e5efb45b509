"""A new plugin project, or a new study with a file of code, from the templates in `modhook/plugin/templates`."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import modhook
from modhook.errors import UserError

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "{package}.toml": "study.toml",
    "src/{package}/__init__.py": "init.py",
    "src/{package}/plugin.py": "plugin.py",
    "src/{package}/task.py": "task.py",
    "src/{package}/network.py": "network.py",
    "src/{package}/analysis.py": "analysis.py",
    "src/{package}/figure.py": "figure.py",
    "tests/test_{package}.py": "test_plugin.py",
    "ci.sh": "ci.sh",
    ".github/workflows/tests.yml": "workflow.yml",
    ".gitignore": "gitignore",
}


def new_plugin(name: str, parent: Path) -> list[Path]:
    """Write a pip project with a task, a network, an analysis, a figure, a study, tests and what CI does; return its files.

    Args:
        name: of the distribution and of the new folder, such as `my-task`; the package is `my_task`.
        parent: the folder that it is made in.

    Raises:
        UserError: no good name, one that is taken, or a folder that exists.
    """
    package = _package(name)
    folder = parent / name
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another name, or remove it.")
    places = {folder / place.format(package=package): template for place, template in _FILES.items()}
    try:
        _write(places, name=name, package=package, version=modhook.__version__)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder with --in.") from error
    return list(places)


def new_study(path: Path) -> list[Path]:
    """Write a study, and a file of code beside it with the task and the network that it names; return both.

    Args:
        path: of the study, such as `my_network.toml`; the code is `my_network.py`.

    Raises:
        UserError: no good name, one that is taken, or a file that exists.
    """
    study = path if path.suffix == ".toml" else path.with_name(f"{path.name}.toml")
    name = study.stem
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} is no name for a study and its code; use letters, digits and _, such as my_network.toml."
        )
    code = study.with_suffix(".py")
    for file in (study, code):
        if file.exists() or file.is_symlink():
            raise UserError(f"{file} exists already; choose another name, or remove it.")
    _refuse_taken(name, "name")
    try:
        _write({study: "own_study.toml", code: "own_code.py"}, name=name)
    except OSError as error:
        raise UserError(f"{study} cannot be written ({error.strerror}); choose another folder.") from error
    return [study, code]


def _write(places: Mapping[Path, str], **values: str) -> None:
    """Write each template to its place."""
    import jinja2

    # Programs and not web pages: nothing is escaped. The only values are names of letters, digits, - and _.
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    templates = files("modhook.plugin").joinpath("templates")
    for path, template in places.items():
        text = engine.from_string(templates.joinpath(f"{template}.j2").read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.render(**values), encoding="utf-8")


def _package(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} is no name for a plugin; use small letters and digits, with - between words, such as my-task."
        )
    package = name.replace("-", "_")
    _refuse_taken(package, "package name")
    return package


def _refuse_taken(name: str, what: str) -> None:
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or importlib.util.find_spec(name):
        raise UserError(f"the {what} {name!r} is taken, by Python or by something installed; choose another.")
