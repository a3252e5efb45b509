"""Drawing figure plugins to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from modhook.errors import UserError
from modhook.interfaces import Figure


def missing_variables(figure: Figure, cubes: Sequence[xr.DataTree]) -> str:
    """Return why a figure cannot be drawn from the first cube, or an empty string."""
    cube = cubes[0]
    task = cube.attrs.get("study", {}).get("task", {}).get("name")
    if figure.tasks is not None and task not in figure.tasks:
        return f"it is for the task {' or '.join(figure.tasks)}, and this cube's is {task}"
    lacks = [
        name
        for name in figure.requires
        if name.partition("/")[0] not in cube.children
        or name.rpartition("/")[2] not in cube[name.rpartition("/")[0]].data_vars
    ]
    if lacks:
        groups = sorted({name.partition("/")[0] for name in lacks})
        hint = f"add the analysis that writes {', '.join(groups)} to [analyses] and run the study again"
        return f"it needs the variable {', '.join(lacks)}; {hint}"
    return ""


def draw(figure: Figure, cubes: Sequence[xr.DataTree], folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Draw a figure and write it to `folder/NAME.FORMAT`; return the files. Raises `UserError` if the folder cannot be written."""
    import matplotlib as mpl

    # No window is ever opened, and text in SVG and PDF stays text.
    mpl.use("agg")
    with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": name}):
        drawn = figure.draw(cubes)
        # The layout is settled once, so that a file does not depend on which others were written before it.
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
        files = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in formats:
                path = folder / f"{name}.{kind}"
                drawn.savefig(
                    path,
                    dpi=300,
                    bbox_inches="tight",
                    metadata={"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else None,
                )
                files.append(path)
        except OSError as error:
            raise UserError(f"the figure {name!r} cannot be written to {folder}: {error.strerror or error}.") from error
    return files
