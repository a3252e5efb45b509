"""docs/tasks.md, docs/behaviours.md and docs/mathematics.md name every option of the tasks, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from modhook_tasks.addmul import AddMulOptions
from modhook_tasks.behaviours.network import LanguageModelOptions
from modhook_tasks.behaviours.task import BehavioursOptions
from modhook_tasks.double_addition import DoubleAdditionOptions
from modhook_tasks.mathematics.task import MathematicsOptions
from modhook_tasks.scan.task import ScanOptions

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "options"), [("addmul", AddMulOptions), ("double_addition", DoubleAdditionOptions), ("scan", ScanOptions)]
)
def test_every_option_has_its_row(name: str, options: type) -> None:
    """A task's table lists its options, all of them and no others."""
    section = re.search(rf"^## {name}\n(.*?)(?=^## )", (DOCS / "tasks.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    cells = re.findall(r"^\| (`[^|]+) \|", section[1], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(f.name for f in attrs.fields(options))


@pytest.mark.parametrize("options", [BehavioursOptions, LanguageModelOptions])
def test_the_behaviours_page_has_every_option(options: type) -> None:
    """So does the page of the task `behaviours`, and of the network that goes with it."""
    page = (DOCS / "behaviours.md").read_text()
    for field in attrs.fields(options):
        assert re.search(rf"^\| `{field.name}` \|", page, re.MULTILINE), field.name


def test_the_mathematics_page_names_every_option() -> None:
    """So does the page of the task `mathematics`."""
    page = (DOCS / "mathematics.md").read_text()
    for field in attrs.fields(MathematicsOptions):
        assert re.search(rf"`{field.name}\b", page), field.name
