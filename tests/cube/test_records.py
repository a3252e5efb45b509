"""Records: a file that is lost, or lies in the place of another run's, is noticed wherever it is read."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from modhook.cube import Cube, create, masks_from, open_cube
from modhook.errors import DamageError

RUNS = [(s, b) for s in (0, 1) for b in (0, 1)]
RUN = {"seed": 2, "masks.beta": 3e-5}


@pytest.fixture
def copy(full_cube: Cube, tmp_path: Path) -> Path:
    """A full cube to be damaged."""
    return Path(shutil.copytree(full_cube.path, tmp_path / "a.zarr"))


def files_of(path: Path, run: tuple[int, int]) -> list[Path]:
    """Return every file of values of one run, the clock and what says how far it is aside."""
    found = [f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json"]
    own = [f for f in found if f"/c/{run[0]}/{run[1]}/" in f"/{f.relative_to(path)}/"]
    return sorted(f for f in own if not str(f.relative_to(path)).startswith(("timing/", "runs/status", "runs/digest")))


def variable_of(path: Path, file: Path) -> str:
    """Return the variable that a file belongs to."""
    return str(file.relative_to(path)).split("/c/")[0]


def exchanged(path: Path, file: Path) -> Iterator[Path]:
    """Yield the same variable's files of other runs that hold something else."""
    name, _, rest = str(file.relative_to(path)).partition("/c/")
    for seed, beta in RUNS:
        other = path / name / "c" / "/".join([str(seed), str(beta), *rest.split("/")[2:]])
        if other.read_bytes() != file.read_bytes():
            yield other


def test_a_record_is_what_a_plain_loop_over_the_files_gives(copy: Path) -> None:
    """The record of a run has every file of it once, with BLAKE2b over place and bytes, and the run's labels."""
    table = json.loads(str(Cube(copy).read("runs/digest", RUN).item()))
    expected = {}
    for file in files_of(copy, (1, 1)):
        key = str(file.relative_to(copy))
        expected[key] = hashlib.blake2b(key.encode() + b"\n" + file.read_bytes(), digest_size=8).hexdigest()
    told = {k: d for entries in table["stages"].values() for k, d in entries.items()}
    assert told == expected
    assert table["run"] == RUN
    assert table["analyses"] == {}
    assert list(table["stages"]) == ["add", "control", "unmasked"]


def test_every_lost_file(copy: Path) -> None:
    """Whatever file of a finished run is missing, reading its variable names run, file and what to do, and `survey` finds it."""
    files = files_of(copy, (1, 1))
    assert len(files) > 15
    for file in files:
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(
            DamageError, match=r"seed=2, masks\.beta=3e-05 is marked done, but its file .* --repair"
        ) as caught:
            open_cube(copy)[variable_of(copy, file)].load()
        assert str(file.relative_to(copy)) in str(caught.value)
        assert "\n" not in str(caught.value)
        (damage,) = Cube(copy).survey(RUN)
        assert str(file.relative_to(copy)) in damage.text
        assert Cube(copy).survey({"seed": 1, "masks.beta": 3e-5}) == []
        file.write_bytes(data)
    assert Cube(copy).survey(RUN) == []
    open_cube(copy).load()


def test_every_exchanged_file(copy: Path) -> None:
    """Files of two runs that change places, each with a fitting checksum, are both noticed, whatever the variable."""
    variables = set()
    for file in files_of(copy, (1, 1)):
        for other in exchanged(copy, file):
            one, two = file.read_bytes(), other.read_bytes()
            file.write_bytes(two)
            other.write_bytes(one)
            name = variable_of(copy, file)
            with pytest.raises(DamageError, match=r"is not the one that it wrote"):
                open_cube(copy)[name].load()
            assert len(Cube(copy).survey(RUN)) == 1
            file.write_bytes(one)
            other.write_bytes(two)
            variables.add(name)
    assert {
        "scores/accuracy",
        "overlap/kept",
        "masks/layout0/bits",
        "masks/layout0/logits",
        "masks/layout0/weights",
    } <= variables


def test_files_of_two_stages_exchanged(copy: Path) -> None:
    """The masks of two stages of one run that change places are noticed by the readers of masks."""
    bits = copy / "masks/layout0/bits/c/1/1"
    (bits / "0").rename(bits / "x")
    (bits / "1").rename(bits / "0")
    (bits / "x").rename(bits / "1")
    for stage in ("control", "add"):
        with pytest.raises(DamageError, match="is not the one that it wrote"):
            masks_from(copy, 2, stage, beta=3e-5)
    assert masks_from(copy, 1, "add", beta=3e-5).size == 15


@pytest.mark.parametrize("what", ["missing", "exchanged", "empty", "flipped"])
def test_a_lost_record(copy: Path, what: str) -> None:
    """A record that is missing, another run's, or broken: the run's values are not trusted, other runs' are."""
    record, other = copy / "runs/digest/c/1/1", copy / "runs/digest/c/0/1"
    if what == "missing":
        record.unlink()
    elif what == "exchanged":
        record.write_bytes(other.read_bytes())
    else:
        data = bytearray(record.read_bytes())
        data[9] ^= 4
        record.write_bytes(b"" if what == "empty" else data)
    for name in ("scores/accuracy", "runs/status"):
        with pytest.raises(DamageError, match=r"seed=2, masks\.beta=3e-05"):
            open_cube(copy)[name].load()
    assert len(Cube(copy).survey(RUN)) == 3
    assert masks_from(copy, 1, "add", beta=3e-5).size == 15


def test_a_status_that_nobody_earned(cube: Cube, fill: Callable[..., Any]) -> None:
    """The file that marks a stage done, put in the place of another run's, does not make that run's stage done."""
    fill(cube, {"seed": 1, "masks.beta": 1e-5})
    path = Path(cube.path)
    target = path / "runs/status/c/1/1/2"
    target.parent.mkdir(parents=True)
    shutil.copy(path / "runs/status/c/0/0/2", target)
    with pytest.raises(DamageError, match=r"'add' of seed=2, masks\.beta=3e-05 is marked done, but the record"):
        open_cube(path)["runs/status"].load()
    with pytest.raises(DamageError, match=r"'add' of seed=2"):
        Cube(path).status(RUN, "add")


def test_what_is_read_is_what_is_checked(copy: Path) -> None:
    """Damage in one run does no harm to the others, and opening reads no record at all."""
    (copy / "masks/layout0/bits/c/0/0/0/0").unlink()
    shutil.rmtree(copy / "runs/digest/c/0")
    tree = open_cube(copy)
    assert tree["scores/accuracy"].sel(seed=2).notnull().all()
    assert masks_from(copy, 2, "add", beta=3e-5).size == 15


def test_a_stage_computed_again(cube: Cube, fill: Callable[..., Any]) -> None:
    """A reader that was open while a stage was computed again reads the new values, and no damage."""
    fill(cube, RUN)
    tree = open_cube(cube.path)
    assert tree["scores/accuracy"].sel(RUN).notnull().all()
    for stage in ("unmasked", "control", "add"):
        cube.set_status(RUN, stage, "pending")
    expected = fill(cube, RUN, salt=1)["accuracy"]
    np.testing.assert_array_equal(open_cube(cube.path)["scores/accuracy"].sel(RUN).values, expected)
    np.testing.assert_array_equal(tree["scores/accuracy"].sel(RUN).values, expected)
    assert cube.survey(RUN) == []


def test_a_value_of_a_done_stage_written_again(cube: Cube, fill: Callable[..., Any]) -> None:
    """Whoever changes a value of a finished stage through the writer leaves a record that fits."""
    fill(cube, RUN)
    cube.write("scores/accuracy", np.array([0.25, 0.75]), RUN, stage="add")
    assert Cube(cube.path).survey(RUN) == []
    assert open_cube(cube.path)["scores/accuracy"].sel(RUN).sel(stage="add").values.tolist() == [0.25, 0.75]


def test_growing_keeps_records(cube: Cube, fill: Callable[..., Any]) -> None:
    """Runs of a cube that has got more seeds are still those that were recorded, and new ones are recorded."""
    fill(cube, RUN)
    cube.grow_seeds(4)
    new = {"seed": 4, "masks.beta": 1e-5}
    fill(cube, new)
    assert [Cube(cube.path).survey(r) for r in (RUN, new)] == [[], []]
    open_cube(cube.path).load()
    table = json.loads(str(cube.read("runs/digest", new).item()))
    assert table["run"] == new


def test_reset_deletes_what_only_those_stages_wrote(copy: Path) -> None:
    """A reset stage is pending, its values read as never written, and what another stage wrote as well stays."""
    cube = Cube(copy)
    cube.write("runs/layout", "layout0", RUN)
    cube.set_status(RUN, "add", "done")
    cube.reset(RUN, ["add"], [])
    assert [cube.status(RUN, s) for s in ("unmasked", "control", "add")] == ["done", "done", "pending"]
    assert str(cube.read("runs/layout", RUN).item()) == "layout0"
    assert cube.survey(RUN) == []


def test_reset_without_a_record_deletes_all_of_the_run(copy: Path) -> None:
    """Where the record is gone, no file of the run can be trusted: none stays, and nothing of other runs goes."""
    others = {f: f.read_bytes() for r in RUNS if r != (1, 1) for f in files_of(copy, r)}
    (copy / "runs/digest/c/1/1").unlink()
    cube = Cube(copy)
    cube.reset(RUN, ["unmasked", "control", "add"], [])
    assert files_of(copy, (1, 1)) == []
    assert np.isnan(open_cube(copy)["scores/accuracy"].sel(RUN).values).all()
    assert {f: f.read_bytes() for f in others} == others


def test_a_cube_of_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Callable[..., Any], fill: Callable[..., Any]
) -> None:
    """Without records a cube opens and can be written as before; nothing is found, and it says that it keeps none."""
    old = tuple(v for v in plan_module().RUN_VARIABLES if v.name != "runs/digest")
    monkeypatch.setattr(plan_module(), "RUN_VARIABLES", old)
    cube = create(tmp_path / "old.zarr", plan())
    fill(cube, RUN)
    assert not cube.recorded
    assert cube.survey(RUN) == []
    cube.grow_seeds(3)
    fill(cube, {"seed": 3, "masks.beta": 1e-5})
    with open_cube(cube.path) as tree:
        assert "digest" not in tree["runs"].data_vars
        tree.load()
    assert masks_from(cube.path, 2, "add", beta=3e-5).size == 15


def plan_module() -> Any:
    """Return the module that lists the variables of every cube (its function of the same name hides it)."""
    import importlib

    return importlib.import_module("modhook.cube.plan")


def test_plain_xarray_still_opens_it(copy: Path) -> None:
    """The record is one more text variable: xarray alone opens the cube as before."""
    tree = xr.open_datatree(copy, engine="zarr")
    assert re.match(r'\{"analyses":', str(tree["runs/digest"].sel(RUN).item()))
