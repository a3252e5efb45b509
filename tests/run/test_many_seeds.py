"""Weights of their own for every seed and setting, and more seeds than ten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modhook.cube import open_cube, weights_from
from modhook_plugins.networks.fnn import FNN, FNNOptions

Run = Callable[..., tuple[int, str, str]]


def state(seed: int, hidden: tuple[int, ...] = (12, 8)) -> dict[str, torch.Tensor]:
    """Weights that no other seed or size has."""
    torch.manual_seed(seed)
    return FNN(FNNOptions(hidden)).build({"inputs": 42, "outputs": 20}).state_dict()


@pytest.fixture
def mine(tiny: Path) -> Path:
    """The study with one file of weights per seed and no training, one mask step, no analyses."""
    text = tiny.read_text().replace("steps = 6", 'weights = "w-{seed}.safetensors"').replace("steps = 5", "steps = 1")
    tiny.write_text(text[: text.index("[analyses]")])
    return tiny


def test_every_seed_loads_its_own_weights(mine: Path, tmp_path: Path, modhook_run: Run) -> None:
    """`{seed}` is filled per run: the cube holds each file's very values under its seed."""
    for seed in (1, 2):
        save_file(state(seed), tmp_path / f"w-{seed}.safetensors")
    code, _, err = modhook_run("run", mine, "--out", tmp_path)
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        for seed in (1, 2):
            assert all(torch.equal(weights_from(cube, seed=seed)[n], t) for n, t in state(seed).items())


def test_a_setting_in_the_name_of_a_file(mine: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A swept setting is written as the cube labels it, so that every size has files of its own; lists too."""
    mine.write_text(
        mine.read_text().replace("w-{seed}", "w-{model.hidden}-{seed}") + '\n[sweep]\n"model.hidden" = [[12, 8], [9, 9]]\n'
    )
    sizes = {"12-8": (12, 8), "9x2": (9, 9)}
    for label, hidden in sizes.items():
        for seed in (1, 2):
            save_file(state(seed, hidden), tmp_path / f"w-{label}-{seed}.safetensors")
    code, _, err = modhook_run("run", mine, "--out", tmp_path)
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        for label, hidden in sizes.items():
            found: Any = weights_from(cube, seed=2, **{"model.hidden": label})
            assert all(torch.equal(found[n], t) for n, t in state(2, hidden).items())


def test_files_that_are_missing_for_some_seeds(mine: Path, tmp_path: Path, modhook_run: Run) -> None:
    """All missing files are named at once, an unknown placeholder with the nearest one; nothing is written."""
    save_file(state(1), tmp_path / "w-1.safetensors")
    code, _, err = modhook_run("run", mine, "--out", tmp_path / "out", "--set", "study.seeds=4")
    assert (code, "train.weights: of 4 files 3 are not there" in err) == (2, True), err
    assert all(f"w-{seed}.safetensors" in err for seed in (2, 3, 4))
    assert "w-1.safetensors" not in err
    code, _, err = modhook_run("run", mine, "--out", tmp_path / "out", "--set", "train.weights=w-{sede}.safetensors")
    assert (code, "unknown placeholder {sede} (did you mean 'seed'?)" in err) == (2, True), err
    save_file(state(2, (3, 3)), tmp_path / "w-2.safetensors")
    code, _, err = modhook_run("run", mine, "--out", tmp_path / "out")
    assert (code, "w-2.safetensors" in err, "shape" in err) == (2, True, True), err
    assert not (tmp_path / "out").exists()


def test_more_than_ten_seeds(mine: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """A cube grows from 2 to 12 seeds; one that was laid out for 12 at once holds the same; `--only seed=11` is one run."""
    mine.write_text(mine.read_text().replace("w-{seed}", "w"))
    save_file(state(0), tmp_path / "w.safetensors")
    assert modhook_run("run", mine, "--out", tmp_path / "grown")[0] == 0
    code, out, err = modhook_run("run", mine, "--out", tmp_path / "grown", "--set", "study.seeds=12", "--only", "seed=11")
    assert (code, "4 stages computed" in out) == (0, True), err
    code, out, _ = modhook_run("run", mine, "--out", tmp_path / "grown", "--set", "study.seeds=12")
    assert (code, "36 stages computed, 12 were there already" in out) == (0, True)
    assert modhook_run("run", mine, "--out", tmp_path / "whole", "--set", "study.seeds=12")[0] == 0

    def values(name: str) -> dict[str, str]:
        found: dict[str, str] = contents(tmp_path / name / "tiny.zarr")
        return {file: text for file, text in found.items() if not file.endswith("zarr.json")}

    assert values("grown") == values("whole")


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("sede=1", "(did you mean 'seed'?) is no dimension"),
        ("seed=37", "the seeds of this study are 1 to 2; --set study.seeds=37 adds more"),
        ("seed=x", "the seeds of this study are 1 to 2."),
        ("masks.sampler=gumble", "matches no run (did you mean 'gumbel'?); there are seed: 1 to 2; masks.sampler: gumbel"),
        ("mask.sampler=gumbel", "(did you mean 'masks.sampler'?)"),
    ],
)
def test_only_what_is_there(only: str, said: str, tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A coordinate that does not exist gets the nearest one, and the seeds that there are."""
    tiny.write_text(tiny.read_text() + '\n[sweep]\n"masks.sampler" = ["gumbel"]\n')
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out", "--only", only)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_mistyped_files_get_the_nearest(
    mine: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study, a cube and a file of weights that are not there: the nearest is named, also from the usual folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/scan.toml").write_text("")
    (tmp_path / "results/scan.zarr").mkdir(parents=True)
    for wrong, right in {
        "scan.tml": "studies/scan.toml",
        "study/scan.toml": "studies/scan.toml",
        "tinny.toml": "tiny.toml",
    }.items():
        code, _, err = modhook_run("run", wrong)
        assert (code, f"(did you mean '{right}'?)" in err) == (2, True), err
    for wrong in ("scam.zarr", "results/scan", "result/scan.zarr"):
        code, _, err = modhook_run("show", wrong)
        assert (code, "results/scan.zarr'?)" in err) == (2, True), err
    save_file(state(1), tmp_path / "w.safetensors")
    code, _, err = modhook_run("run", mine, "--set", "train.weights=v.safetensors")
    assert (code, f"(did you mean '{tmp_path / 'w.safetensors'}'?)" in err) == (2, True), err
