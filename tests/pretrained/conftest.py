"""`--write` writes docs/pretrained.md from what was measured, if every network was there and passed; the cases are made importable."""

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
    parser.addoption("--write", action="store_true", help="write docs/pretrained.md from the results of all networks")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[dict]:
    """Collect what every network gave, and write the page at the end where asked to."""
    import pretrained_cases
    from pretrained_page import page

    found: dict = {}
    yield found
    whole = set(found) == set(pretrained_cases.CASES)
    if request.config.getoption("--write") and whole and not request.session.testsfailed:
        (HERE.parents[1] / "docs" / "pretrained.md").write_text(page(found.values()), encoding="utf-8")
