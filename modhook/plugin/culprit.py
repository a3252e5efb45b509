"""Whose code an error comes from: the innermost frame that belongs neither to modhook's core nor to a library below it."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import attrs

DEBUG = "MODHOOK_DEBUG"
"""Set in the environment by `--debug`, so that workers on this machine know of it, too."""
_CORE = os.path.join(str(Path(__file__).resolve().parents[1]), "")
_FIRST_PARTY = tuple(f"{os.sep}{name}{os.sep}" for name in ("modhook_plugins", "modhook_tasks"))
_STANDARD = tuple(
    os.path.join(os.path.realpath(path), "")
    for name in ("stdlib", "platstdlib")
    if (path := sysconfig.get_paths().get(name))
)
_PACKAGES = ("site-packages", "dist-packages")
# Modules that are called with an author's objects: an error that is raised in them is seldom theirs.
_BELOW = {
    *("torch", "functorch", "torchvision", "numpy", "numba", "pandas", "scipy", "xarray", "zarr", "numcodecs", "fsspec", "s3fs"),
    *("matplotlib", "PIL", "safetensors", "transformers", "attr", "attrs", "cattr", "cattrs", "click", "rich", "pluggy"),
    *("distributed", "dask", "tornado", "filelock", "jinja2", "tomlkit"),
}


@attrs.frozen
class Frame:
    """One place in a file."""

    path: str
    line: int
    top: bool = False
    """Whether it is code of a module's top level, which runs when the module is imported."""

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"

    @property
    def ours(self) -> bool:
        """Whether it lies in modhook, its own plugins included."""
        path = os.path.realpath(self.path)
        return path.startswith(_CORE) or any(part in path for part in _FIRST_PARTY)

    @property
    def library(self) -> str:
        """The package below modhook that it lies in ("python" for the standard library), or an empty text."""
        path = os.path.realpath(self.path)
        parts = Path(path).parts
        for n, part in enumerate(parts[:-1]):
            if part in _PACKAGES:
                top = parts[n + 1].removesuffix(".py")
                return top if top in _BELOW else ""
        return "python" if self.path.startswith("<") or path.startswith(_STANDARD) else ""


def belongs_to_a_library(path: str) -> bool:
    """Return whether a file is Python's, an installed package's or modhook's, and so told by a version."""
    real = os.path.realpath(path)
    installed = any(part in _PACKAGES for part in Path(real).parts)
    return installed or real.startswith(_STANDARD) or Frame(path, 0).ours


def culprit(error: BaseException) -> Frame | None:
    """Return the innermost frame outside modhook's core and the libraries below it; else the innermost of all."""
    return _authors(error) or innermost(error)


def told(error: BaseException) -> str:
    """Return type, first line and place of an error: `NameError: name 'x' is not defined (/home/me/plugin.py, line 3)`.

    The place is the author's own line. An error that comes from none of them, such as a module that is not there, has no place.
    """
    frame = _authors(error)
    words = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        frame, words = Frame(error.filename, error.lineno or 0), error.msg
    first = words.strip().partition("\n")[0]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return f"{said} ({frame})" if frame else said


def _authors(error: BaseException) -> Frame | None:
    for frame in _frames(error):
        if not os.path.realpath(frame.path).startswith(_CORE) and not frame.library:
            return frame
    return None


def innermost(error: BaseException) -> Frame | None:
    """Return where an error was raised."""
    return next(_frames(error), None)


def importing(error: BaseException) -> str:
    """Return the library below modhook whose import failed, or an empty text."""
    if isinstance(error, ImportError):
        top = (error.name or "").partition(".")[0]
        if top and not top.startswith("modhook"):
            return top
    # Python takes the frames of its import machinery out of a traceback; what remains is the code of a module's top level.
    for frame in (f for f in _frames(error) if f.top):
        name = Path(frame.path).stem if Path(frame.path).stem in _BELOW else frame.library
        if name not in ("", "python"):
            return name
    return ""


def _frames(error: BaseException) -> Iterator[Frame]:
    """Yield the frames of an error, innermost first, then those of what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        for frame in reversed(traceback.extract_tb(current.__traceback__)):
            yield Frame(frame.filename, frame.lineno or 0, frame.name == "<module>")
        current = current.__cause__ or current.__context__


def traceback_of(error: BaseException) -> str:
    """Return the whole traceback as text."""
    return "".join(traceback.format_exception(error)).rstrip()
