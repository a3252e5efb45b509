"""Writes a report, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from modhook.cube import Where, beside, open_cube, place_of
from modhook.errors import UserError
from modhook.plugin.manager import Plugins
from modhook.report.collect import collect
from modhook.report.render import render


def report_path(cube: Where) -> Path:
    """Return where a cube's report goes by default: `scan-report.html` beside `scan.zarr`, or here if that is at a URL."""
    return beside(cube, "-report.html").absolute()


def write_report(cube: Where, out: Path | None, plugins: Plugins, figures: Sequence[str] = ()) -> Path:
    """Write the report of a cube, finished or not, and return its path. Two reports of one cube are the same bytes.

    Args:
        cube: the cube's folder, or its URL.
        out: the file, which ends in `.html`; None for `report_path`.
        plugins: whose figures are drawn.
        figures: further figures, by names that `plugins` can load (`my_figure.py:MyFigure`).

    Raises:
        PluginError: a figure that is asked for cannot be loaded.
        CubeError: no cube, or a damaged one. UserError: the file cannot be written, or is no place for a report.
    """
    path = report_path(cube) if out is None else out
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the report is an HTML file, but --out {path} does not end in .html; give it that ending.")
    if path.is_dir():
        raise UserError(f"the report cannot be written to {path}, which is a folder; name a file in it with --out.")
    further = {name: plugins.load("figures", name) for name in figures}
    place = place_of(cube)
    source = place.path if isinstance(place.path, Path) else Path(place.name)
    if source in path.absolute().parents:
        raise UserError(
            f"the report cannot be written to {path}, which is inside the cube; name a file outside with --out."
        )
    with open_cube(place.path) as tree:
        page = render(collect(tree, source, plugins, further))
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(page.encode("utf-8", "replace"))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"the report cannot be written to {path}: {error.strerror or error}.") from error
    return path
