"""The citation says what the package says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_citation_has_the_version_of_the_package() -> None:
    """CITATION.cff, and the BibTeX of docs/cite.md, name the version and the licence that pyproject.toml has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    bibtex = (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^ *version: (.+)$", cff, re.MULTILINE)) == {project["version"]}
    assert re.findall(r"^license: (.+)$", cff, re.MULTILINE) == [project["license"]]
    assert re.findall(r"version = \{(.+)\}", bibtex) == [project["version"]]


def test_every_extra_that_a_user_may_want_is_named() -> None:
    """docs/install.md names each extra of pyproject.toml that is not for developing modhook."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert [e for e in extras if e not in {"test", "docs", "lint", "types", "site", "zoo"} and f"`{e}`" not in page] == []
