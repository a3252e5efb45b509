"""The command line as a user meets it, in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from warm import Warm

ROOT = Path(__file__).parents[2]


def modhook(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m modhook`."""
    return subprocess.run([sys.executable, "-m", "modhook", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_help_teaches() -> None:
    """--help lists every command and says where to start."""
    found = modhook("--help")
    assert found.returncode == 0
    for word in ("run", "check", "list", "show", "plot", "studies/quickstart.toml"):
        assert word in found.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"], ["list", "tasks", "--json"]])
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    """--help and list import neither torch nor xarray, so that they answer at once."""
    code = (
        "import sys\nfrom modhook.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'xarray', 'zarr', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_list_json() -> None:
    """--json prints an object by kind, and one array for a kind."""
    everything = json.loads(modhook("list", "--json").stdout)
    assert {"tasks", "models", "analyses", "figures", "samplers", "protocols", "trackers"} == set(everything)
    tasks = json.loads(modhook("list", "tasks", "--json").stdout)
    assert {t["name"] for t in tasks} >= {"addmul", "scan"}
    assert all(set(t) == {"name", "summary", "target", "package"} for t in tasks)


def test_every_study_passes_check(warm: Warm) -> None:
    """Every study file in the repository is in order, with all of its variants, and has a smoke."""
    files = sorted((ROOT / "studies").glob("*.toml"))
    assert len(files) >= 2
    found = warm.run("-m", "modhook", "check", *files)
    assert found.returncode == 0, found.stderr
    for line in found.stdout.splitlines():
        assert line.startswith("  ") or "smoke" in line  # what controls cost is said below the file's own line


def test_usage_mistakes_exit_with_2(tmp_path: Path) -> None:
    """A wrong option or command is click's own sentence and exit code 2."""
    for arguments in (["rnu"], ["run"], ["run", "x.toml", "--ouput", "y"], ["list", "taks"]):
        found = modhook(*arguments)
        assert found.returncode == 2, found.stderr
        assert "Error" in found.stderr or "Usage" in found.stderr
        assert "Traceback" not in found.stderr


def test_debug_shows_the_traceback(tmp_path: Path, warm: Warm) -> None:
    """--debug, wherever it stands, adds the traceback to the sentence."""
    found = warm.run("-m", "modhook", "show", tmp_path / "none.zarr", "--debug")
    assert found.returncode == 2
    assert "Traceback" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("Error: ")
