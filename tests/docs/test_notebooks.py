"""Notebooks are stored with the outputs of one run. That they run is checked by `nox -s docs` and `nox -s notebooks`."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "studies" / "notebooks").glob("*.ipynb"))
CONCLUDES = {"ask_a_pretrained_network"}
"""Ends with numbers that stand in outputs above."""


def read(path: Path) -> Any:
    """Return a notebook of a valid format, without an editor's metadata, whose code compiles."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(notebook.metadata.language_info) == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            compile(cell.source, f"{path.name}:{cell.id}", "exec")
    return notebook


def test_there_are_notebooks() -> None:
    """The tests below look at something."""
    assert {p.stem for p in NOTEBOOKS} >= {"open_a_cube", "mask_my_network", *CONCLUDES}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_of_one_run(path: Path) -> None:
    """Every cell ran once, in order, none failed or warned, figures can be read, and no folder of somebody's computer is named."""
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert figures
    for figure in figures:
        assert matplotlib.image.imread(BytesIO(base64.b64decode(figure))).std() > 0.01
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|Users)/|C:\\\\", text)
    assert len(text) < 1_000_000


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in CONCLUDES], ids=lambda p: p.stem)
def test_conclusion_says_what_the_outputs_say(path: Path) -> None:
    """Every share and every overlap in the last words stands in an output above them."""
    *cells, last = read(path).cells
    assert last.cell_type == "markdown"
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    said = " ".join(output.get("text") or str(output.data) for output in outputs).replace(" %", "%")
    numbers = re.findall(r"-?\d+\.\d+%?", last.source.replace(" %", "%"))
    assert len(numbers) > 5
    assert [number for number in numbers if number not in said] == []
