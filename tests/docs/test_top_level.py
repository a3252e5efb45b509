"""What lies at the top of the repository: nothing that a run or a test left there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = {
    *(".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "README.md"),
    *("SECURITY.md", "constraints.txt", "docs", "mkdocs.yml", "modhook", "noxfile.py", "plugins", "pyproject.toml", "studies"),
    *("tasks_plugins", "tests"),
}


def test_nothing_strange_is_kept_at_the_top() -> None:
    """Files beside cubes that are on no disk had been left by tests and were committed with other work."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"git does not list this checkout: {listed.stderr.strip()}")
    assert {name.partition("/")[0] for name in listed.stdout.split("\0") if name} <= KNOWN
