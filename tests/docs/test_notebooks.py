"""Notebooks are stored as they were written; that they run is checked by `nox -s docs`."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "studies" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    """The test below looks at something."""
    assert {p.stem for p in NOTEBOOKS} >= {"open_a_cube", "mask_my_network"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stripped(path: Path) -> None:
    """No outputs, no counts, no editor's metadata: a diff shows only what somebody wrote. The format is valid."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(notebook.metadata.language_info) == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            compile(cell.source, f"{path.name}:{cell.id}", "exec")
