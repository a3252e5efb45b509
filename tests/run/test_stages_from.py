"""`modhook run --stages-from CUBE`: stages of another study that differs in what comes after them alone are taken, not computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from modhook.cube import Cube, open_for_writing, pack
from modhook_plugins.networks.fnn import FNN, FNNOptions

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
    assert (code, "no run that is to be computed has all its stages there" in err, "4 stages computed;" in out) == (0, True, True), err
    code, out, err = modhook_run("run", other, "--out", tmp_path, "--only-control", "--only", "seed=3")
    assert code == 0, err
    code, out, err = modhook_run("run", other, "--out", tmp_path, "--stages-from", half)
    assert "the stages of 1 run are taken from" in err
    assert "; 1 run was begun here, and not taken" in err
    assert (code, True, "2 stages computed, 10 were there already" in out) == (0, True, True), err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 0.8", "lr = 0.7", "holds other stages than this study: masks.lr is 0.8 there and 0.7 here"),
        ("[analyses]", "[controls]\nshuffled = {}\n[analyses]", "has the stages unmasked, control, add, mul, but this study with"),
        ('name = "other"', 'name = "tiny"', "names the study's own cube"),
        ("", "", "was packed without weights and logits, which analyses need"),
    ],
)
def test_another_cube_is_refused(
    made: Path, other: Path, tmp_path: Path, modhook_run: Run, old: str, new: str, said: str
) -> None:
    """Other settings or controls, the study's own cube, one without weights: one sentence; nothing is written or deleted."""
    other.write_text(other.read_text().replace(old, new))
    source, out = made / "tiny.zarr", tmp_path / "new"
    fresh: tuple[str, ...] = ()
    if not old:
        source = pack(source, tmp_path / "tiny.zip").path
    if "tiny" in new:
        source, out, fresh = tmp_path / "link.zarr", tmp_path / "own", ("--fresh", "--yes")
        shutil.copytree(made, out)
        source.symlink_to(out / "tiny.zarr")
    code, _, err = modhook_run("run", other, "--out", out, "--stages-from", source, *fresh)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "new").exists()
    assert files(source) == files(made / "tiny.zarr") if fresh else True


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_taking_that_was_cut_off_goes_on_to_the_same_bits(
    made: Path, other: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """Killed between two marks, the same command takes the rest, to the same files."""
    write, marks = Cube.write, []

    def failing(self: Cube, name: str, value: Any, run: Any, **labels: Any) -> None:
        if name == "runs/status" and value == 1:
            marks.append(labels)
        if len(marks) > done:
            raise KeyboardInterrupt
        write(self, name, value, run, **labels)

    one = ("run", other, "--only", "seed=1")
    with monkeypatch.context() as cut:
        cut.setattr(Cube, "write", failing)
        assert modhook_run(*one, "--out", tmp_path, "--stages-from", made / "tiny.zarr")[0] == 130
    code, out, err = modhook_run(*one, "--out", tmp_path, "--stages-from", made / "tiny.zarr")
    assert (code, "0 stages computed" in out, "are taken from" in err) == (0, True, True), err
    assert modhook_run(*one, "--out", tmp_path / "plain")[0] == 0
    assert files(tmp_path / "other.zarr") == files(tmp_path / "plain" / "other.zarr")


def test_stages_that_a_run_lacks_are_taken_beside_its_own_ones(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Where a run has only the control, and the very one of the source, the rest is taken; of runs with others nothing is."""
    one = ("run", other, "--out", tmp_path, "--only", "seed=1")
    assert modhook_run(*one, "--only-control")[0] == 0
    code, out, err = modhook_run(*one, "--stages-from", made / "tiny.zarr")
    assert (code, "0 stages computed, 4 were there already" in out, "the stages of 1 run are taken from" in err) == (0, True, True), err
    text = other.read_text()
    at = text.index("[analyses]")
    other.write_text(f"{text[:at]}[controls]\nshuffled = {{}}\n{text[at:]}")
    third = other.with_name("third.toml")
    third.write_text(other.read_text().replace('name = "other"', 'name = "third"').replace("seeds = 3", "seeds = 1"))
    assert modhook_run("run", third, "--out", tmp_path)[0] == 0
    code, out, err = modhook_run(*one, "--stages-from", tmp_path / "third.zarr")
    assert (code, "0 stages computed" in out, "the stages of 1 run are taken from" in err) == (0, True, True), err
    assert modhook_run("show", "--verify", tmp_path / "other.zarr")[0] == 0


def test_a_damaged_file_is_not_taken(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A file that is not the one that the stage wrote ends the command before --fresh deletes anything."""
    bad = Path(shutil.copytree(made / "tiny.zarr", tmp_path / "bad.zarr"))
    first, second = (min(f for f in (bad / "masks/layout0/weights/c" / str(n)).rglob("*") if f.is_file()) for n in (0, 1))
    shutil.copyfile(first, second)
    one = ("--out", tmp_path, "--only", "seed=2")
    assert modhook_run("run", other, *one)[0] == 0
    before = files(tmp_path / "other.zarr")
    code, _, err = modhook_run("run", other, *one, "--stages-from", bad, "--fresh", "--yes")
    assert (code, "is not the one that it wrote" in err) == (2, True), err
    assert files(tmp_path / "other.zarr") == before


def test_a_record_that_names_files_of_another_run_is_refused(made: Path, other: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A cube made to write over another run's masks is refused before anything is written."""
    bad = open_for_writing(shutil.copytree(made / "tiny.zarr", tmp_path / "bad.zarr"))
    ledger, first, second = bad._store.ledger, (0,), (1,)
    stages = {name: dict(entries) for name, entries in ledger.record(first).stages.items()}
    key, told = next((k, d) for k, d in ledger.record(second).stages["mul"].items() if k.startswith("masks/"))
    stages["add"][key] = told
    bad._write_record({"seed": 1}, first, stages, ledger.record(first).analyses)
    code, _, err = modhook_run("run", other, "--out", tmp_path, "--only", "seed=1", "--stages-from", bad.path)
    assert (code, f"names {key}, which is not of this run" in err) == (2, True), err
    assert not (tmp_path / "other.zarr").exists()


def test_trained_weights_that_are_not_those_of_the_file_are_refused(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A source whose version kept no digest of `train.weights` is compared by its trained weights; the same ones are taken."""
    state = FNN(FNNOptions(hidden=(12, 8))).build({"inputs": 42, "outputs": 20}).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    tiny.write_text(tiny.read_text().replace("steps = 6", 'weights = "w.safetensors"').replace("seeds = 2", "seeds = 1"))
    assert modhook_run("run", tiny, "--out", tmp_path)[0] == 0
    open_for_writing(tmp_path / "tiny.zarr").set_attrs(loaded={})
    second = tmp_path / "second.toml"
    second.write_text(tiny.read_text().replace('name = "tiny"', 'name = "second"'))
    name = next(iter(state))
    save_file({**state, name: state[name] + 1e-6}, tmp_path / "w.safetensors")
    code, _, err = modhook_run("run", second, "--out", tmp_path, "--stages-from", tmp_path / "tiny.zarr")
    assert (code, "was computed with other weights than those in" in err) == (2, True), err
    save_file(state, tmp_path / "w.safetensors")
    code, _, err = modhook_run("run", second, "--out", tmp_path, "--stages-from", tmp_path / "tiny.zarr")
    assert (code, "the stages of 1 run are taken from" in err) == (0, True), err
