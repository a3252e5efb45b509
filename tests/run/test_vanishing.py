"""A cube that another process is deleting, file by file, while it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modhook.cube import place
from modhook.errors import CubeError, GoneError
from modhook.run.failure import gone_or_damaged


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """Return a folder as a cube's, with five files of labels beside its root."""
    at = tmp_path / "a.zarr"
    (at / "seed").mkdir(parents=True)
    (at / "zarr.json").write_text("{}")
    for i in range(5):
        (at / "seed" / str(i)).write_text("1")
    return at


def _looks(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> list[int]:
    """Do something between every two looks at the folder instead of waiting, and return the list of looks."""
    looks: list[int] = []

    def sleep(_: float) -> None:
        looks.append(len(looks))
        assert len(looks) < 50, "waited for ever"
        then(looks[-1])

    monkeypatch.setattr(place.time, "sleep", sleep)
    return looks


def test_a_cube_that_is_being_deleted_is_gone(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels go first and the root last, with a pause between: it is never told that a file is to be restored."""

    def delete(look: int) -> None:
        files = [*sorted((cube / "seed").iterdir()), cube / "zarr.json"]
        if look % 2:  # every other look finds as many files as the one before
            os.unlink(files[0])

    _looks(monkeypatch, delete)
    with pytest.raises(GoneError, match="is gone: it was moved or deleted"), gone_or_damaged(cube):
        raise CubeError("the labels of seed cannot be read")


def test_a_damaged_cube_stays_damaged(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more files go, the damage is told, after a few looks."""
    looks = _looks(monkeypatch, lambda _: None)
    with pytest.raises(CubeError, match="labels of seed"), gone_or_damaged(cube):
        raise CubeError("the labels of seed cannot be read")
    assert len(looks) < 8


def test_what_another_process_writes_is_waited_for(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose files become more is not being deleted, and its damage is told too."""

    def write(look: int) -> None:
        if look < 4:
            (cube / "seed" / f"more{look}").write_text("1")

    _looks(monkeypatch, write)
    with pytest.raises(CubeError, match="labels of seed"), gone_or_damaged(cube):
        raise CubeError("the labels of seed cannot be read")
