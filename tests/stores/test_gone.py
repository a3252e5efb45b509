"""A cube at a URL that is deleted while a study runs: the whole run stops, and nothing of the cube is made again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from modhook.cube import place, place_of
from modhook.errors import GoneError, StorageError

Run = Callable[..., tuple[int, str, str]]
# Another program that deletes the cube, at a moment that does not depend on the clock.
DELETES = """
import fsspec
import modhook

class Deletes(modhook.Tracker):
    def place(self, cube):
        self.cube, self.run = cube, ""

    def run_started(self, label):
        self.run = label

    def _at(self, *what):
        if (self.run, *what) == ("seed=1", *{moment}):
            fs, path = fsspec.url_to_fs(self.cube, use_listings_cache=False)
            fs.rm(path, recursive=True)

    def stage_started(self, stage, steps):
        self.stage = stage
        self._at("started", stage)

    def step(self, step, values):
        self._at("step", self.stage, step)

    def stage_finished(self, stage, scores):
        self._at("finished", stage)

    def message(self, text):
        self._at("message", text)
"""
MOMENTS = {
    "base training": ("step", "unmasked", 2),
    "between stages": ("finished", "unmasked"),
    "before the masks' first step": ("started", "add"),
    "the last mask stage": ("step", "mul", 3),
    "before the analyses": ("finished", "mul"),
    "an analysis": ("message", "analysis sharing"),
}


@pytest.fixture
def deleting(study: Callable[..., Path]) -> Callable[[tuple[Any, ...]], Path]:
    """Return how to write the study whose cube is deleted at a moment of its first seed."""

    def write(moment: tuple[Any, ...]) -> Path:
        file = study(2)
        file.with_name("deletes.py").write_text(DELETES.format(moment=moment))
        return file

    return write


def _stopped(code: int, err: str, cube: str, begun: int = 1) -> None:
    assert code == 1, err
    lines = [line for line in err.splitlines() if line.startswith(("Error", "Failed"))]
    assert len(lines) == 1, err
    assert f"{cube} is gone: it was moved or deleted while modhook was at work" in lines[0]
    assert err.count("run seed=") == begun  # no further run begins


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cube_in_memory_that_is_deleted(moment: str, deleting: Callable[..., Path], modhook_run: Run) -> None:
    """Whenever it is deleted, the run stops with one sentence and exit code 1, leaves no file there, and can be started over."""
    out = f"memory://gone/{list(MOMENTS).index(moment)}"
    file, memory = deleting(MOMENTS[moment]), fsspec.filesystem("memory")
    together = 2 if moment == "the last mask stage" else 1
    code, _, err = modhook_run("run", file, "--set", f"run.together={together}", "--out", out, "--tracker", "deletes.py:Deletes")
    # Where both are computed together, the second has begun before the first one's masks.
    _stopped(code, err, f"{out}/tiny.zarr", begun=together)
    assert memory.find(out.removeprefix("memory:/")) == []
    if moment == "an analysis":
        code, told, err = modhook_run("run", file, "--out", out)
        assert (code, "8 stages computed" in told) == (0, True), err


def test_a_cube_in_a_bucket_that_is_deleted(s3: Any, deleting: Callable[..., Path], modhook_run: Run) -> None:
    """In a real bucket too, where every write would succeed."""
    file = deleting(MOMENTS["base training"])
    code, _, err = modhook_run("run", file, "--out", "s3://bucket/gone", "--tracker", "deletes.py:Deletes")
    _stopped(code, err, "s3://bucket/gone/tiny.zarr")
    assert s3.files("gone") == {}


def test_a_cube_that_loses_its_objects_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root is the last name of a listing: while objects go, the end of the deletion is waited for; damage stays damage."""
    memory = fsspec.filesystem("memory")
    for key in ("runs/seed/c/0", "runs/zarr.json", "zarr.json"):
        memory.pipe_file(f"/going/a.zarr/{key}", b"{}")
    there, looks = place_of("memory://going/a.zarr"), []

    def sleep(_: float) -> None:
        looks.append(1)
        assert len(looks) < 20, "waited for ever"

    monkeypatch.setattr(place.time, "sleep", sleep)
    there.await_deletion()  # nothing goes
    assert len(looks) < 8

    def delete(_: float) -> None:
        memory.rm_file(memory.find("/going/a.zarr")[0])

    monkeypatch.setattr(place.time, "sleep", delete)
    with pytest.raises(GoneError, match="is gone"):
        there.await_deletion()


class Refusing(MemoryFileSystem):
    """Says no to whoever asks about a file; its `exists`, fsspec's own, takes that for "not there"."""

    protocol = "refusing"

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Refuse."""
        raise PermissionError(errno.EACCES, "Forbidden")

    def exists(self, path: str, **options: Any) -> bool:
        """As in fsspec."""
        return AbstractFileSystem.exists(self, path, **options)


def test_a_server_that_refuses_has_not_lost_the_cube() -> None:
    """A permission that ran out is a failure of the storage: what it holds is safe, and nobody is told that it was deleted."""
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    there = place_of("refusing://bucket/a.zarr")
    with pytest.raises(StorageError, match="cannot be read: Forbidden") as told:
        there.still_there(request=True)
    assert not isinstance(told.value, GoneError)
