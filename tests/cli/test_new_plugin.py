"""`modhook new-plugin`: the project works as it is, and nothing is ever overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
import yaml
from warm import Warm

from modhook.cube import masks_from
from modhook.errors import UserError
from modhook.plugin.scaffold import new_plugin


def found_in(folder: Path) -> dict[str, str]:
    """The environment in which the project's package is found."""
    path = os.pathsep.join([str(folder / "src"), *(p for p in sys.path if p)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in the project, with the package found through the path as if it were installed."""

    def begin(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.run(*arguments, cwd=folder, env=found_in(folder))

    return begin


def seem_installed(folder: Path) -> None:
    """Write beside the package what pip would write of the project's own pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(
        f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)


def test_the_project_works_as_it_is(tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Its plugin is found, its study runs, its tests pass."""
    written = new_plugin("my-task", tmp_path)
    folder = tmp_path / "my-task"
    assert sorted(str(p.relative_to(folder)) for p in written) == [
        ".github/workflows/tests.yml",
        ".gitignore",
        "README.md",
        "ci.sh",
        "my_task.toml",
        "pyproject.toml",
        "src/my_task/__init__.py",
        "src/my_task/analysis.py",
        "src/my_task/figure.py",
        "src/my_task/network.py",
        "src/my_task/plugin.py",
        "src/my_task/task.py",
        "tests/test_my_task.py",
    ]
    assert not [p for p in written if "{{" in p.read_text().replace("${{ matrix.python }}", "")]
    steps = yaml.safe_load((folder / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["sh ci.sh"]
    assert steps[1]["with"]["python-version"] == "${{ matrix.python }}"
    assert subprocess.run(["sh", "-n", "ci.sh"], cwd=folder, check=False).returncode == 0
    seem_installed(folder)
    listed = run(folder, "-m", "modhook", "list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("[my-task]") == 4  # the task, the network, the analysis and the figure
    broken = run(folder, "-m", "modhook", "list", "--broken")
    assert (broken.returncode, broken.stdout) == (0, "broken:\n  none\n")
    done = run(folder, "-m", "modhook", "run", "my_task.toml", "--variant", "smoke")
    assert done.returncode == 0, done.stderr
    cube = xr.open_datatree(folder / "results/my_task-smoke.zarr", engine="zarr")
    assert cube["scores"]["accuracy"].dims == ("seed", "stage", "split")
    assert cube["scores"]["accuracy"].notnull().all()
    masks = masks_from(folder / "results/my_task-smoke.zarr", seed=1, stage="xor")
    first, last = (mask.numpy() for mask in masks.values())  # (64, 10), (2, 64)
    used = sum(any(first[i, :]) and any(last[:, i]) for i in range(64))
    assert float(cube["my_task_units"]["used"].sel(seed=1, stage="xor")) == used
    told = run(folder, "-m", "modhook", "report", "results/my_task-smoke.zarr")
    assert told.returncode == 0, told.stderr
    page = (folder / "results/my_task-smoke-report.html").read_text()
    assert "Hidden units that each mask uses" in page
    assert "figures that could not be drawn" not in page.lower()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    tested = subprocess.run(command, cwd=folder, env=found_in(folder), capture_output=True, text=True, check=False)
    assert (tested.returncode, "5 passed" in tested.stdout) == (0, True), tested.stdout


@pytest.mark.parametrize("name", ["My-Task", "1task", "my task", "../task", "task-", "-task", "", "a/b", "täsk"])
def test_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    """A name that is no plain package name is refused, and nothing is written."""
    with pytest.raises(UserError, match="is no name for a plugin; use small letters"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["class", "json", "torch", "modhook", "modhook-tasks"])
def test_a_taken_name_is_refused(name: str, tmp_path: Path) -> None:
    """A word of Python, a standard module and an installed package cannot be the package's name."""
    with pytest.raises(UserError, match="is taken"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command answers with one sentence and exit code 2, and touches nothing in the folder."""
    from modhook.cli import main

    (tmp_path / "my-task").mkdir()
    (tmp_path / "my-task/thesis.txt").write_text("three years of work")
    with pytest.raises(SystemExit) as stop:
        main(["new-plugin", "my-task", "--in", str(tmp_path)])
    assert stop.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "my-task").iterdir()] == ["thesis.txt"]
