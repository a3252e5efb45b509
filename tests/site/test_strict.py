"""The build fails for what would be wrong on the site, and says where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_broken_pages_fail_the_build(tmp_path: Path) -> None:
    """A link to no page, a link to no section, a page outside the index, and a public name without a place each end the build."""
    for name in ("docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "mkdocs.yml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "studies" / "notebooks", tmp_path / "studies" / "notebooks")
    (tmp_path / "modhook").symlink_to(ROOT / "modhook")
    with (tmp_path / "docs" / "cite.md").open("a", encoding="utf-8") as page:
        page.write("\nSee [this](nowhere.md) and [that](units.md#no-such-section).\n")
    (tmp_path / "docs" / "unlisted.md").write_text("# Unlisted\n", encoding="utf-8")
    masks = tmp_path / "docs" / "reference" / "masks.md"
    masks.write_text(masks.read_text(encoding="utf-8").replace("::: modhook.iomin\n", ""), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "built")],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert "'nowhere.md'" in done.stderr
    assert "#no-such-section" in done.stderr
    assert "docs/unlisted.md" in done.stderr
    assert [line for line in warnings if "modhook.iomin is public and on no page of docs/reference" in line]
