"""`--write` writes docs/zoo.md from what the zoo gave, if all of it passed; the cases are made importable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--write`."""
    parser.addoption("--write", action="store_true", help="write docs/zoo.md from the results of the whole zoo")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[list]:
    """Collect what every case gave, and write the table at the end where asked to."""
    from zoo_table import table

    found: list = []
    yield found
    if request.config.getoption("--write") and not request.session.testsfailed:
        (HERE.parents[1] / "docs" / "zoo.md").write_text(table(found), encoding="utf-8")
