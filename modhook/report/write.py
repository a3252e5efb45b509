"""Writes a report, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from modhook.cube import Where, beside, open_cube, place_of, stem
from modhook.errors import UserError
from modhook.plugin.manager import Plugins
from modhook.report.collect import collect
from modhook.report.facts import Facts
from modhook.report.render import render
from modhook.report.several import collect_several
from modhook.report.sides import refuse_incomparable, refuse_twice, sides

_LONGEST = 120
"""A file's name is not longer than so many letters of the cubes' names after the first."""


def report_path(cubes: Where | Sequence[Where]) -> Path:
    """Return where a report goes by default: `scan-report.html` beside `scan.zarr`, or here if that is at a URL.

    Of several cubes `scan-and-scan_transformer-report.html` beside the first.
    """
    first, *others = _listed(cubes)
    names = [f"-and-{stem(place_of(other).name)}" for other in others]
    if len("".join(names)) > _LONGEST:
        names = [f"-and-{len(others)}-others"]
    return beside(first, f"{''.join(names)}-report.html").absolute()


def write_report(
    cubes: Where | Sequence[Where],
    out: str | Path | None = None,
    plugins: Plugins | None = None,
    figures: Sequence[str] = (),
) -> Path:
    """Write the report of a cube, finished or not, and return its path; of several cubes one report with what they say side by side.

    Two reports of the same cubes are the same bytes.

    Args:
        cubes: the cube's folder, its pack, or its URL; a list of several.
        out: the file, which ends in `.html`; None for `report_path`.
        plugins: whose figures are drawn; None for everything installed.
        figures: further figures, by names that `plugins` can load (`my_figure.py:MyFigure`).

    Raises:
        PluginError: a figure that is asked for cannot be loaded.
        CubeError: no cube, or a damaged one; one that cannot be compared with the others.
        UserError: a cube that is given twice; the file cannot be written, or is no place for a report.
    """
    every = _listed(cubes)
    if plugins is None:
        from modhook.plugin.manager import plugins as installed

        plugins = installed()
    path = report_path(every) if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the report is an HTML file, but --out {path} does not end in .html; give it that ending.")
    if path.is_dir():
        raise UserError(f"the report cannot be written to {path}, which is a folder; name a file in it with --out.")
    further = {name: plugins.load("figures", name) for name in figures}
    places = [place_of(cube) for cube in every]
    sources = [place.path if isinstance(place.path, Path) else Path(place.name) for place in places]
    if any(source in path.absolute().parents for source in sources):
        raise UserError(
            f"the report cannot be written to {path}, which is inside the cube; name a file outside with --out."
        )
    refuse_twice(every)
    with contextlib.ExitStack() as stack:
        trees = [(stack.enter_context(open_cube(place.path)), source) for place, source in zip(places, sources, strict=True)]
        if len(trees) == 1:
            page = render(collect(Facts(*trees[0]), plugins, further))
        else:
            found = sides(trees)
            refuse_incomparable(found, every)
            page = render(collect_several(found, plugins, further), "several.html.j2")
    _write(path, page)
    return path


report = write_report
"""Its name in `modhook`: `modhook.report([...])`."""


def _listed(cubes: Where | Sequence[Where]) -> list[Where]:
    every: list[Where] = [cubes] if isinstance(cubes, (str, Path)) else list(cubes)
    if not every:
        raise UserError("a report needs a cube; give one, or a list of several.")
    return every


def _write(path: Path, page: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(page.encode("utf-8", "replace"))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"the report cannot be written to {path}: {error.strerror or error}.") from error
