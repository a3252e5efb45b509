"""A new plugin project, from the templates in `modhook/plugin/templates`."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path

from modhook.errors import UserError

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "{package}.toml": "study.toml",
    "src/{package}/__init__.py": "init.py",
    "src/{package}/plugin.py": "plugin.py",
    "src/{package}/task.py": "task.py",
    "src/{package}/network.py": "network.py",
    "tests/test_{package}.py": "test_plugin.py",
}


def new_plugin(name: str, parent: Path) -> list[Path]:
    """Write a pip project with a task, a network, a study and a test; return its files.

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
    import jinja2

    # Programs and not web pages: nothing is escaped. The only value is a name of letters, digits, - and _.
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    templates = files("modhook.plugin").joinpath("templates")
    written = []
    try:
        for place, template in _FILES.items():
            text = engine.from_string(templates.joinpath(f"{template}.j2").read_text(encoding="utf-8"))
            path = folder / place.format(package=package)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.render(name=name, package=package), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder with --in.") from error
    return written


def _package(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} is no name for a plugin; use small letters and digits, with - between words, such as my-task."
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or importlib.util.find_spec(package):
        raise UserError(f"the package name {package!r} is taken, by Python or by something installed; choose another.")
    return package
