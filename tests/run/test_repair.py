"""A cube that has lost a file, or has two exchanged: every command says so, and `run --repair` computes it again to the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm import Warm

from modhook.cube import masks_from
from modhook.errors import DamageError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "place"))


def swap(one: Path, other: Path) -> None:
    """Exchange two files."""
    a, b = one.read_bytes(), other.read_bytes()
    assert a != b
    one.write_bytes(b)
    other.write_bytes(a)


def _lost_scores(cube: Path) -> None:
    (cube / "scores/accuracy/c/1/2/0").unlink()


def _lost_bits(cube: Path) -> None:
    (cube / "masks/layout0/bits/c/1/1/0").unlink()


def _swapped_history(cube: Path) -> None:
    swap(cube / "history/loss/c/0/1/0", cube / "history/loss/c/1/1/0")


def _swapped_overlap(cube: Path) -> None:
    swap(cube / "overlap/iou_total/c/0/1/0", cube / "overlap/iou_total/c/1/1/0")


def _swapped_masks(cube: Path) -> None:
    swap(cube / "masks/layout0/bits/c/0/1/0", cube / "masks/layout0/bits/c/1/1/0")


def _swapped_weights(cube: Path) -> None:
    swap(cube / "masks/layout0/weights/c/0/0", cube / "masks/layout0/weights/c/1/0")


def _lost_record(cube: Path) -> None:
    (cube / "runs/digest/c/1").unlink()


def _swapped_records(cube: Path) -> None:
    swap(cube / "runs/digest/c/0", cube / "runs/digest/c/1")


def _lost_folder(cube: Path) -> None:
    shutil.rmtree(cube / "scores/accuracy/c/1")


def _flipped(cube: Path) -> None:
    file = cube / "masks/layout0/logits/c/1/2/0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _broken_status(cube: Path) -> None:
    (cube / "runs/status/c/1/2").write_bytes(b"abc")


def _lost_status(cube: Path) -> None:
    (cube / "runs/status/c/1/2").unlink()


def _lost_overlap(cube: Path) -> None:
    next(f for f in sorted((cube / "overlap").rglob("c/1/*")) if f.is_file()).unlink()


DAMAGES = [
    _lost_scores,
    _lost_bits,
    _swapped_history,
    _swapped_overlap,
    _swapped_masks,
    _swapped_weights,
    _lost_record,
    _swapped_records,
    _lost_folder,
    _flipped,
    _broken_status,
    _lost_overlap,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_run_says_it_and_repair_mends_it(damage: Any, place: Path, made: Path, modhook_run: Run, contents: Any) -> None:
    """`run` refuses with one sentence that names run, stage and remedy, and changes nothing; with --repair all bytes are as before."""
    damage(place / "tiny.zarr")
    before = contents(place / "tiny.zarr")
    code, _, err = modhook_run("run", place / "tiny.toml", "--out", place)
    assert code == 2, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for said in ("is damaged", "seed=", "--repair"):
        assert said in last
    assert contents(place / "tiny.zarr") == before
    code, _, err = modhook_run("run", place / "tiny.toml", "--out", place, "--repair")
    assert code == 0, err
    assert "will be computed again" in err
    assert contents(place / "tiny.zarr") == contents(made / "tiny.zarr")
    code, _, err = modhook_run("show", place / "tiny.zarr", "--verify")
    assert (code, "every file of 2 runs is the one that its stage wrote" in err) == (0, True)


def test_a_lost_status_is_a_stage_to_do(place: Path, made: Path, modhook_run: Run, contents: Any) -> None:
    """A stage whose status is gone counts as not done: the same command computes it, and nothing else differs."""
    _lost_status(place / "tiny.zarr")
    code, out, err = modhook_run("run", place / "tiny.toml", "--out", place)
    assert (code, "1 stages computed, 7 were there already" in out) == (0, True), err
    assert contents(place / "tiny.zarr") == contents(made / "tiny.zarr")


def test_only_what_is_damaged_is_computed(place: Path, modhook_run: Run) -> None:
    """A lost value of an analysis costs that analysis of that run alone; a lost mask its stage and what comes after it."""
    _lost_overlap(place / "tiny.zarr")
    _, out, err = modhook_run("run", place / "tiny.toml", "--out", place, "--repair")
    assert "0 stages computed, 8 were there already" in out
    assert "repair: seed=2: sharing will be computed again" in err
    _lost_bits(place / "tiny.zarr")
    _, out, err = modhook_run("run", place / "tiny.toml", "--out", place, "--repair")
    assert "2 stages computed, 6 were there already" in out
    assert "repair: seed=2: add, mul, sharing, inverse will be computed again" in err


def test_stages_that_hand_on_gradients(tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """Where a stage begins with what the one before left (clipping over all), repairing the last one gives the same bits, too."""
    command = ["run", tiny, "--out", tmp_path, "--set", 'masks.clip_over="all"', "--set", "study.seeds=1"]
    assert modhook_run(*command)[0] == 0
    before = contents(tmp_path / "tiny.zarr")
    (tmp_path / "tiny.zarr/masks/layout0/logits/c/0/2/0").unlink()
    code, _, err = modhook_run(*command, "--repair")
    assert code == 0, err
    assert contents(tmp_path / "tiny.zarr") == before


def test_runs_that_are_not_asked_for_are_not_looked_at(place: Path, modhook_run: Run) -> None:
    """An array job is not stopped by what is wrong with another job's run."""
    _lost_scores(place / "tiny.zarr")
    assert modhook_run("run", place / "tiny.toml", "--out", place, "--only", "seed=1")[0] in (0, 2)
    code, _, err = modhook_run("run", place / "tiny.toml", "--out", place, "--only", "seed=2")
    assert (code, "stage 'add' of seed=2 is marked done" in err) == (2, True)


COMMANDS = {
    "show": (["show"], _swapped_overlap),
    "show, lost": (["show", "--format", "csv"], _lost_scores),
    "verify": (["show", "--verify"], _lost_bits),
    "plot": (["plot", "--figure", "kept_weights", "--format", "svg"], None),
    "report": (["report"], _swapped_masks),
    "report, lost": (["report"], _lost_bits),
    "analyse": (["analyse"], _swapped_masks),
    "analyse, weights": (["analyse"], _swapped_weights),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_reader_says_it(name: str, place: Path, modhook_run: Run) -> None:
    """show, plot, report, analyse: exit code 2 and one sentence, where what they read is lost or exchanged."""
    (command, *rest), damage = COMMANDS[name]
    cube = place / "tiny.zarr"
    if damage is None:
        for file in (f for f in (cube / "overlap").rglob("c/0/*") if f.is_file()):
            file.unlink()
    else:
        damage(cube)
    more = ["mask_histogram"] if "," not in name else ["half_mask", "--set", 'early=["layer1.*"]']
    code, _, err = modhook_run(command, cube, *(more if command == "analyse" else []), *rest)
    assert code == 2, err
    last = err.strip().splitlines()[-1]
    assert "is marked done, but its file" in last
    assert "--repair" in last
    assert "seed=" in last


def test_masks_from_says_it(place: Path) -> None:
    """The library's reader raises an error that names run, stage and file."""
    _swapped_masks(place / "tiny.zarr")
    for seed in (1, 2):
        with pytest.raises(
            DamageError, match=rf"stage 'add' of seed={seed} is marked done, but its file masks/layout0/bits"
        ):
            masks_from(place / "tiny.zarr", seed, "add")
        assert masks_from(place / "tiny.zarr", seed, "mul").size


def test_an_older_cube_opens_with_a_note(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cube without records is shown, continued and analysed, and each command says what is not noticed in it."""
    import importlib

    plan = importlib.import_module("modhook.cube.plan")
    monkeypatch.setattr(plan, "RUN_VARIABLES", tuple(v for v in plan.RUN_VARIABLES if v.name != "runs/digest"))
    modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1")
    monkeypatch.undo()
    for command in (
        ["run", tiny, "--out", tmp_path],
        ["show", tmp_path / "tiny.zarr"],
        ["report", tmp_path / "tiny.zarr"],
    ):
        code, _, err = modhook_run(*command)
        assert code == 0, err
        assert "was written by an older version, which kept no record" in err
    code, _, err = modhook_run("show", tmp_path / "tiny.zarr", "--verify")
    assert (code, "it cannot be verified" in err) == (2, True)


def test_repair_on_workers(place: Path, made: Path, contents: Any, warm: Warm) -> None:
    """What --repair makes pending is computed by workers just as well."""
    _swapped_weights(place / "tiny.zarr")
    command = ["run", str(place / "tiny.toml"), "--out", str(place), "--repair", "--workers", "2"]
    done = warm.run("-m", "modhook", *command)
    assert done.returncode == 0, done.stderr
    assert contents(place / "tiny.zarr") == contents(made / "tiny.zarr")


@pytest.mark.parametrize("lost", ["shape", "dtype", "count", "offset", "mask_offset", "masked"])
def test_what_all_runs_share_is_missed(place: Path, lost: str, modhook_run: Run) -> None:
    """A lost table of where tensors lie stops `run` and `show --verify` with its name: it belongs to no run's record."""
    shutil.rmtree(place / f"tiny.zarr/masks/layout0/{lost}/c")
    for command in (("run", place / "tiny.toml", "--out", place), ("show", "--verify", place / "tiny.zarr")):
        code, _, err = modhook_run(*command)
        assert code == 2
        assert f"masks/layout0/{lost}, which all runs share, is missing" in " ".join(err.split())
