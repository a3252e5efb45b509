"""Drawing figure plugins to files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from modhook.errors import ModhookError, PluginError, UserError
from modhook.plotting.settings import defaults, installation_blamed, ready
from modhook.plugin.interfaces import Figure

_MARGIN = 0.03
"""Around a figure, in inches."""


def applies(figure: Figure, cubes: Sequence[xr.DataTree]) -> bool:
    """Return whether a figure can be drawn from these cubes."""
    fit = all(_for_task(figure, cube) and not _lacking(figure, cube) for cube in cubes)
    return fit and not figure.lacks(cubes)


def missing_variables(figure: Figure, cubes: Sequence[xr.DataTree]) -> str:
    """Return why a figure cannot be drawn from these cubes, or an empty string; of several cubes the first that does not fit is named."""
    for cube in cubes:
        if not _for_task(figure, cube):
            wanted = " or ".join(figure.tasks or ())
            return f"it is for the task {wanted}, and that of {_name(cube)} is {_task(cube)}"
        if lacks := _lacking(figure, cube):
            return (
                f"it needs the variable {', '.join(lacks)}, which {_name(cube)} does not have; {_remedy(cube, lacks)}"
            )
    return figure.lacks(cubes)


def _task(cube: xr.DataTree) -> Any:
    return cube.attrs.get("study", {}).get("task", {}).get("name")


def _for_task(figure: Figure, cube: xr.DataTree) -> bool:
    return figure.tasks is None or _task(cube) in figure.tasks


def _lacking(figure: Figure, cube: xr.DataTree) -> list[str]:
    return [name for name in figure.requires if not _has(cube, name)]


def _has(cube: xr.DataTree, name: str) -> bool:
    group, _, short = name.rpartition("/")
    return group in cube.children and short in cube[group].data_vars


def _name(cube: xr.DataTree) -> str:
    return str(cube.encoding.get("source", "the cube"))


def _remedy(cube: xr.DataTree, lacks: Sequence[str]) -> str:
    """Say which analyses would write the variables."""
    writers = _writers(cube)
    if writers is None:
        groups = ", ".join(dict.fromkeys(name.partition("/")[0] for name in lacks))
        return f"run `modhook analyse {_name(cube)} NAME` with the analysis that writes {groups}"
    found = list(dict.fromkeys(writers[name] for name in lacks if name in writers))
    if any(name not in writers for name in lacks):
        return "no installed analysis writes that for this study"
    return " and ".join(f"run `modhook analyse {_name(cube)} {analysis}`" for analysis in found)


def _writers(cube: xr.DataTree) -> dict[str, str] | None:
    """Return which installed analysis writes which variable for a cube's study, or None if this modhook cannot read the study."""
    from modhook.plugin.manager import plugins
    from modhook.study import restore

    installed = plugins()
    found: dict[str, str] = {}
    try:
        study = restore(cube.attrs["study"], plugins=installed)
        task = installed.load("tasks", study.task.name)(study.task.options)
        if not installed.load("protocols", study.study.protocol)(study.protocol).masked_stages(task):
            return {}  # analyses need masks
    except (ModhookError, KeyError):  # written by another version, or a plugin is not installed here
        return None
    for name in installed.names("analyses"):
        try:
            analysis = installed.load("analyses", name)(study.analyses.get(name))
            found |= {variable.name: name for variable in analysis.variables(task)}
        except ModhookError:  # it is not for this task, or its package is broken
            continue
    return found


def by_rank(named: Iterable[tuple[str, Figure]]) -> list[tuple[str, Figure]]:
    """Sort figures and their names by importance."""
    return sorted(named, key=lambda pair: (pair[1].rank, pair[0]))


def draw(
    figure: Figure,
    cubes: Sequence[xr.DataTree],
    folder: Path,
    name: str,
    formats: Sequence[str],
    prepare: Callable[[Any], object] | None = None,
) -> list[Path]:
    """Draw a figure and write it to `folder/NAME.FORMAT`; return the files. The user's matplotlib settings change nothing.

    `prepare` is called with matplotlib's figure once it has been drawn, before it is written.

    Raises:
        UserError: the folder cannot be written, or matplotlib cannot draw here; `PluginError` if what was drawn is no figure.
    """
    ready()
    import matplotlib.figure

    with defaults(name):
        with installation_blamed(name):
            drawn: Any = figure.draw(cubes)  # a plugin of anybody's
            if not isinstance(drawn, matplotlib.figure.Figure):
                found = "nothing" if drawn is None else type(drawn).__name__
                raise PluginError(
                    f"draw of the figure {name!r} returned {found}, not a matplotlib.figure.Figure; its plugin needs a repair."
                )
            # The layout is settled once, so that a file does not depend on which others were written before it; so is what
            # is cut off around it, for which matplotlib would otherwise draw everything twice per file.
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")
            cut = drawn.get_tightbbox().padded(_MARGIN)
            if prepare is not None:
                prepare(drawn)
        files = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in formats:
                path = folder / f"{name}.{kind}"
                drawn.savefig(
                    path,
                    dpi=300,
                    bbox_inches=cut,
                    metadata={"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else None,
                )
                if kind == "svg":
                    _number_ids(path)
                files.append(path)
        except OSError as error:
            raise UserError(f"the figure {name!r} cannot be written to {folder}: {error.strerror or error}.") from error
    return files


def _number_ids(path: Path) -> None:
    """Name what is defined once by its order: matplotlib makes such names of where things lay in memory, too."""
    text = path.read_text(encoding="utf-8")
    for number, name in enumerate(dict.fromkeys(re.findall(r'id="([A-Za-z]+[0-9a-f]{10})"', text))):
        text = re.sub(rf"(?<=[\"#]){name}(?=[\")])", f"d{number}", text)
    path.write_text(text, encoding="utf-8")
