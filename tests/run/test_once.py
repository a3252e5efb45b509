"""Base training that runs of a sweep have in common: done once, and each run is what it would be by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import small_scan, small_study
from stopping import Stop

Run = Callable[..., tuple[int, str, str]]

CARRIES = small_study(train="validate_every = 3", masks='clip_over = "all"\nclip = 0.01')
SCAN = small_scan()
BETAS = '[sweep]\n"masks.beta" = [1e-4, 1e-1]\n'


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Path]:
    """Write a study into a file."""

    def write(text: str) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(text)
        return path

    return write


def files(cube: Path) -> list[Path]:
    """The folder of checkpoints."""
    folder = cube.with_name(f"{cube.name}.checkpoints")
    return sorted(folder.iterdir()) if folder.exists() else []


def trained(stop: Stop) -> int:
    """Return how many steps of base training were done, and forget them."""
    done = sum(stage == "unmasked" for stage, _ in stop.steps)
    stop.steps.clear()
    return done


@pytest.mark.parametrize(("text", "seeds"), [(CARRIES, 2), (SCAN, 1)], ids=["carries", "dropout"])
def test_every_run_is_what_it_is_alone(
    text: str, seeds: int, study: Any, tmp_path: Path, modhook_run: Run, contents: Any, stop: Stop
) -> None:
    """Two betas of a seed train one network; every file of each run is that of the run computed in a cube of its own."""
    file = study(text + BETAS)
    code, out, err = modhook_run("run", file, "--out", tmp_path)
    assert code == 0, err
    assert trained(stop) == seeds * 6
    assert f"unmasked is the same in run seed={seeds}, masks.beta=0.0001, and taken from there" in out + err
    assert not files(tmp_path / "tiny.zarr")
    whole, parts = contents(tmp_path / "tiny.zarr"), {}
    for seed in range(1, seeds + 1):
        for beta in ("1e-4", "1e-1"):
            alone = tmp_path / f"{seed}-{beta}"
            code, _, err = modhook_run("run", file, "--out", alone, "--only", f"seed={seed}", "--only", f"masks.beta={beta}")
            assert code == 0, err
            assert trained(stop) == 6
            parts |= {name: what for name, what in contents(alone / "tiny.zarr").items() if "/c/" in name}
    assert len(parts) > 30 * seeds
    assert {name: what for name, what in whole.items() if name in parts} == parts


def test_runs_of_several_commands(study: Any, tmp_path: Path, modhook_run: Run, stop: Stop, contents: Any) -> None:
    """What the first command leaves serves the second, as long as a run waits for it; a run of another setting of training has its own."""
    file = study(CARRIES + BETAS + '"train.lr" = [1e-3, 1e-2]\n')
    cube = tmp_path / "tiny.zarr"
    one = ("run", file, "--out", tmp_path, "--only", "seed=1")
    assert modhook_run(*one, "--only", "masks.beta=1e-4")[0] == 0
    assert (trained(stop), len(files(cube))) == (12, 2)  # one for each rate
    assert modhook_run(*one, "--only", "train.lr=1e-2")[0] == 0
    assert (trained(stop), len(files(cube))) == (0, 1)
    assert modhook_run("run", file, "--out", tmp_path)[0] == 0
    assert (trained(stop), len(files(cube))) == (12, 0)
    stop.at = ("control", 3)
    assert modhook_run("run", file, "--out", tmp_path / "cut")[0] == 130
    assert modhook_run("run", file, "--out", tmp_path / "cut")[0] == 0
    assert contents(tmp_path / "cut/tiny.zarr") == contents(cube)


def test_what_cannot_be_used_is_computed(study: Any, tmp_path: Path, modhook_run: Run, stop: Stop, contents: Any) -> None:
    """A damaged file, and one of another number of threads: the network is trained, and the file goes when nobody waits."""
    file = study(CARRIES + BETAS)
    assert modhook_run("run", file, "--out", tmp_path / "whole")[0] == 0
    assert trained(stop) == 12
    cut = ("run", file, "--out", tmp_path, "--only", "seed=1", "--only")
    assert modhook_run(*cut, "masks.beta=1e-4")[0] == 0
    (left,) = files(tmp_path / "tiny.zarr")
    left.write_bytes(left.read_bytes()[:-1])
    assert modhook_run(*cut, "masks.beta=1e-1")[0] == 0
    assert (trained(stop), files(tmp_path / "tiny.zarr")) == (12, [])
    assert modhook_run("run", file, "--out", tmp_path, "--only", "masks.beta=1e-4", "--set", "run.threads=1")[0] == 0
    assert modhook_run("run", file, "--out", tmp_path, "--set", "run.threads=2")[0] == 0
    assert (trained(stop), files(tmp_path / "tiny.zarr")) == (12, [])


def test_nothing_in_common_leaves_nothing(study: Any, tmp_path: Path, modhook_run: Run, stop: Stop) -> None:
    """Seeds alone, and settings of training, have no network in common; a sampler's option has."""
    for name, sweep, steps in (("a", "", 12), ("b", '"train.lr" = [1e-3, 1e-2]', 24), ("c", '"sampler.temperature" = [0.5, 1.0]', 12)):
        file = study(small_study() + (f"[sweep]\n{sweep}\n" if sweep else ""))
        stop.at = None
        assert modhook_run("run", file, "--out", tmp_path / name)[0] == 0
        assert (trained(stop), files(tmp_path / name / "tiny.zarr")) == (steps, [])
