"""`--fresh` deletes a cube in one step: killed anywhere, the same command works, and so it does for a damaged cube."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import Warm

from modhook.cube import Plan, create, removable, remove_leftovers
from modhook.errors import CubeError
from modhook.plugin.variables import Variable

Run = Callable[..., tuple[int, str, str]]
FRESH = ("--fresh", "--yes", "--set", "study.seeds=1")
PLAN = Plan(
    attrs={"study": {"name": "small"}},
    run_dims={"seed": [1, 2]},
    variables=(Variable("scores/accuracy", ("stage",), "float64", "share of right answers"),),
    labels={"scores": {"stage": ["unmasked", "add"]}},
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the way catches it."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Set after how many deleted files or folders the next call does not return any more."""
    left = [10**9]

    def counting(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            real(*arguments, **options)

        return call

    for name in ("unlink", "rmdir", "remove"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))

    def at(n: int) -> None:
        left[0] = n

    yield at
    left[0] = 10**9


def test_killed_at_every_unlink(tmp_path: Path, killed_at: Callable[[int], None]) -> None:
    """After each number of deleted files there is the whole cube or none, a new one can be made, and nothing is left beside it."""
    whole = create(tmp_path / "whole.zarr", PLAN).path
    stages = 0
    for n in range(10_000):
        path = Path(shutil.copytree(whole, tmp_path / f"{n}" / "a.zarr"))
        killed_at(n)
        try:
            removable(path).remove()
            break
        except Killed:
            stages += 1
        finally:
            killed_at(10**9)
        assert not path.exists()
        assert len(list(path.parent.glob(".a.zarr.*.deleted"))) == 1
        create(path, PLAN)
        assert sorted(p.name for p in path.parent.iterdir()) == [".a.zarr.lock", "a.zarr"]
        shutil.rmtree(path.parent)
    files = sum(1 for _ in Path(whole).rglob("*"))
    assert stages == files + 1


def test_a_later_run_removes_what_a_kill_left(tmp_path: Path, killed_at: Callable[[int], None]) -> None:
    """Leftovers of a killed deletion go also where a cube lies in its place again; another cube's stay."""
    path, other = create(tmp_path / "a.zarr", PLAN).path, tmp_path / ".b.zarr.12345678.deleted"
    assert isinstance(path, Path)
    killed_at(3)
    with pytest.raises(Killed):
        removable(path).remove()
    killed_at(10**9)
    left = next(tmp_path.glob(".a.zarr.*.deleted"))
    other.mkdir()
    shutil.copytree(left, path)
    remove_leftovers(path)
    assert not left.exists()
    assert other.exists()


CHILD = """
import os, signal, sys
left = int(sys.argv[1])
def dying(real):
    def call(path, *rest, **options):
        global left
        if any(".deleted" in entry.name for entry in os.scandir(sys.argv[2])):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return real(path, *rest, **options)
    return call
os.unlink, os.rmdir = dying(os.unlink), dying(os.rmdir)
from modhook.cli import main
main(sys.argv[3:])
"""


@pytest.mark.parametrize("n", [0, 40])
def test_the_same_command_after_a_real_kill(
    n: int, tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any, made: Path, warm: Warm
) -> None:
    """`run --fresh`, killed by SIGKILL while it deletes, works when it is given again, and leaves the cube of an undisturbed run."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    command = ["run", str(tiny), "--out", str(out), *FRESH]
    child = warm.run("-c", CHILD, str(n), str(out), *command)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (out / "tiny.zarr").exists()
    assert modhook_run(*command)[0] == 0
    assert contents(out / "tiny.zarr") == contents(made / "tiny.zarr")
    assert [p.name for p in out.iterdir() if p.name.startswith(".") and p.suffix not in (".lock", ".pid")] == []


@pytest.fixture(scope="module")
def made(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished cube of one seed."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("made")
    study = tmp_path_factory.mktemp("study") / "tiny.toml"
    study.write_text(tiny_text)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(study), "--out", str(folder), *FRESH])
    assert stop.value.code == 0
    return folder


def _truncated(cube: Path) -> None:
    (cube / "zarr.json").write_bytes((cube / "zarr.json").read_bytes()[:500])


def _zeroed(cube: Path) -> None:
    (cube / "zarr.json").write_bytes(bytes(400))


def _rootless(cube: Path) -> None:
    (cube / "zarr.json").unlink()


def _half_deleted(cube: Path) -> None:
    for name in ("zarr.json", "seed/zarr.json"):
        (cube / name).unlink()
    shutil.rmtree(cube / "runs")


def _newer(cube: Path) -> None:
    text = (cube / "zarr.json").read_text()
    (cube / "zarr.json").write_text(text.replace('"modhook_format": 2', '"modhook_format": 99'))


def _emptied(cube: Path) -> None:
    shutil.rmtree(cube)
    cube.mkdir()


@pytest.mark.parametrize("damage", [_truncated, _zeroed, _rootless, _half_deleted, _newer, _emptied])
def test_fresh_replaces_a_damaged_cube(
    damage: Callable[[Path], None], tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any, made: Path
) -> None:
    """Without a root, with a broken one, of another format, half deleted by an older version: --fresh starts over."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    damage(out / "tiny.zarr")
    code, _, err = modhook_run("run", tiny, "--out", out, *FRESH)
    assert code == 0, err
    assert contents(out / "tiny.zarr") == contents(made / "tiny.zarr")


def _foreign(cube: Path) -> None:
    text = (cube / "zarr.json").read_text()
    (cube / "zarr.json").write_text(text.replace('"modhook_format"', '"their_format"'))


def _thesis(cube: Path) -> None:
    (cube / "zarr.json").unlink()
    (cube / "runs" / "thesis.tex").write_text("ten years")


@pytest.mark.parametrize("change", [_foreign, _thesis])
def test_fresh_deletes_nothing_else(change: Callable[[Path], None], made: Path, tmp_path: Path) -> None:
    """A store of another program, and a folder without a root that holds other files too, are refused and stay as they are."""
    cube = Path(shutil.copytree(made / "tiny.zarr", tmp_path / "tiny.zarr"))
    change(cube)
    before = sorted(cube.rglob("*"))
    with pytest.raises(CubeError, match=r"--fresh does not delete .*tiny\.zarr.*move it away") as caught:
        removable(cube)
    assert "\n" not in str(caught.value)
    assert sorted(cube.rglob("*")) == before


def test_fresh_does_not_follow_a_link(made: Path, tmp_path: Path) -> None:
    """A cube behind a link is not deleted through it, and said so."""
    (tmp_path / "tiny.zarr").symlink_to(made / "tiny.zarr")
    with pytest.raises(CubeError, match="is a link"):
        removable(tmp_path / "tiny.zarr").remove()
    assert (made / "tiny.zarr" / "zarr.json").exists()
