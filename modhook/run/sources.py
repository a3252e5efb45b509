"""The files of code that a study names itself (`my_task.py:MyTask`): a cube is continued only with those it was computed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modhook.cube import Cube
from modhook.errors import CubeError
from modhook.plugin.code import short
from modhook.plugin.manager import Plugins
from modhook.study import Study, own_code

Sources = dict[str, dict[str, str]]
"""{name of code: {file: digest}}, a cube's attribute `code`."""


def sources(study: Study, plugins: Plugins) -> Sources:
    """Return the digests of the files of all code that a study names itself. Raises `PluginError` for what cannot be imported."""
    return {name: dict(plugins.code(name).files) for name in own_code(study, plugins)}


def same_sources(cube: Cube, found: Sources) -> Sources:
    """Return what a cube is to record, after comparing what it records with what is found.

    The file of an analysis may change until a run has it.

    Raises:
        CubeError: a file that the cube was computed with has changed.
    """
    known = recorded(cube)
    for name, files in found.items():
        before = known.get(name, files)  # older cubes say nothing of networks by `module:callable`
        if before != files and (not _is_analysis(cube, name) or _done_somewhere(cube, name)):
            file = _differing(before, files)
            raise CubeError(
                f"{cube.path} was computed with another {file} than the one found now, which {name!r} comes from; put the old one "
                "back, or use another --out, or --fresh to start over."
            )
    return {**known, **found}


def recorded(cube: Cube) -> Sources:
    """Return the digests that a cube records."""
    found: Any = cube.attrs.get("code", {})
    return {str(n): dict(f) for n, f in found.items() if isinstance(f, Mapping)} if isinstance(found, Mapping) else {}


def same_on_worker(cube: Cube, found: Sources) -> str:
    """Return the file that differs from what the cube was laid out for, or an empty text."""
    known = recorded(cube)
    return next((_differing(known.get(n, {}), files) for n, files in found.items() if known.get(n) != files), "")


def _differing(before: Mapping[str, str], files: Mapping[str, str]) -> str:
    return next(file for file in {**files, **before} if before.get(file) != files.get(file))


def _is_analysis(cube: Cube, name: str) -> bool:
    return name in cube.attrs.get("study", {}).get("analyses", {})


def _done_somewhere(cube: Cube, name: str) -> bool:
    """Return whether any run of a cube has an analysis."""
    variable = f"runs/{short(name)}"
    return variable in cube.variables and any(int(cube.read(variable, run)) == 1 for run in cube.runs())
