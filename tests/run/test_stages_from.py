"""`modhook run --stages-from CUBE`: stages of another study that differs in what comes after them alone are taken, not computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modhook.cube import open_for_writing, pack

Run = Callable[..., tuple[int, str, str]]


def files(cube: Path) -> dict[str, bytes]:
    """Return the content of every file of a cube, times aside."""
    found = {str(f.relative_to(cube)): f.read_bytes() for f in cube.rglob("*") if f.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("timing/")}


@pytest.fixture
def other(tiny: Path) -> Path:
    """A study with the same stages: another name, a third seed, other analyses and options of them."""
    text = tiny.read_text().replace('name = "tiny"', 'name = "other"').replace("seeds = 2", "seeds = 3")
    at = text.index("[analyses]")
    end = text.find("\n[", at)
    path = tiny.with_name("other.toml")
    path.write_text(text[:at] + "[analyses]\nhalf_mask = { random = 2 }\nsharing = {}\n" + (text[end:] if end > 0 else ""))
    return path


def test_what_is_taken_is_what_computing_gives(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Runs of the other cube bring their stages, the third seed is computed, and all files equal those of a cube without it."""
    code, out, err = modhook_run("run", other, "--out", tmp_path / "taken", "--stages-from", made / "tiny.zarr")
    assert code == 0, err
    assert "the stages of 2 runs are taken from" in err
    assert "4 stages computed, 8 were there already" in out
    assert modhook_run("run", other, "--out", tmp_path / "plain")[0] == 0
    taken, plain = files(tmp_path / "taken/other.zarr"), files(tmp_path / "plain/other.zarr")
    assert taken.keys() == plain.keys()
    assert [name for name in taken if taken[name] != plain[name]] == []
    with_times = {str(f.relative_to(tmp_path / "taken/other.zarr")) for f in (tmp_path / "taken/other.zarr/timing").rglob("*")}
    assert with_times == {str(f.relative_to(tmp_path / "plain/other.zarr")) for f in (tmp_path / "plain/other.zarr/timing").rglob("*")}
    code, out, _ = modhook_run("run", other, "--out", tmp_path / "taken", "--stages-from", made / "tiny.zarr")
    assert (code, "0 stages computed, 12 were there already" in out) == (0, True)


def test_a_run_that_is_not_finished_is_computed(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Only runs with all their stages are taken; where there is none, a sentence says that nothing is."""
    half = Path(shutil.copytree(made / "tiny.zarr", tmp_path / "half.zarr"))
    open_for_writing(half).reset({"seed": 2}, ["mul"], [])
    code, out, err = modhook_run("run", other, "--out", tmp_path, "--stages-from", half, "--only", "seed=2")
    assert (code, "no run that is to be computed has all its stages in" in err, "4 stages computed;" in out) == (0, True, True), err
    code, out, err = modhook_run("run", other, "--out", tmp_path, "--stages-from", half)
    assert (code, "the stages of 1 run are taken" in err, "4 stages computed, 8 were there already" in out) == (0, True, True), err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 0.8", "lr = 0.7", "holds other stages than this study: masks.lr is 0.8 there and 0.7 here"),
        ('name = "other"', 'name = "tiny"', "names the study's own cube"),
        ("", "", "was packed without weights and logits, which analyses need"),
    ],
)
def test_another_cube_is_refused(
    made: Path, other: Path, tmp_path: Path, modhook_run: Run, old: str, new: str, said: str
) -> None:
    """Other settings, the study's own cube, and one without weights: one sentence, and nothing is written."""
    other.write_text(other.read_text().replace(old, new))
    source = made / "tiny.zarr" if old else pack(made / "tiny.zarr", tmp_path / "tiny.zip").path
    out = made if "tiny" in new else tmp_path / "new"
    code, _, err = modhook_run("run", other, "--out", out, "--stages-from", source)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_is_not_taken(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A file that is not the one that the stage wrote ends the command, and the run counts as not computed."""
    bad = Path(shutil.copytree(made / "tiny.zarr", tmp_path / "bad.zarr"))
    first, second = (min(f for f in (bad / "masks/layout0/weights/c" / str(n)).rglob("*") if f.is_file()) for n in (0, 1))
    shutil.copyfile(first, second)
    one = ("--out", tmp_path, "--only", "seed=2")
    code, _, err = modhook_run("run", other, *one, "--stages-from", bad)
    assert (code != 0, "is not the one that it wrote" in err) == (True, True), err
    code, out, err = modhook_run("run", other, *one, "--stages-from", made / "tiny.zarr")
    assert (code, "0 stages computed, 4 were there already" in out) == (0, True), err
