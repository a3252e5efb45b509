"""Cubes in an object store: the same commands, the same bytes, against a real server that speaks S3."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from s3fs import S3FileSystem
from warm import Warm

from modhook.cube import create, masks_from, open_cube, place_of, writer_lock
from modhook.cube.plan import Plan
from modhook.errors import CubeError

Run = Callable[..., tuple[int, str, str]]
PLAN = Plan(attrs={}, run_dims={"seed": [1]}, variables=(), labels={"runs": {"stage": ["add"]}})


def untimed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out what depends on the clock."""
    return {k: v for k, v in files.items() if not (k.startswith("timing/") and "/c/" in k)}


def test_a_study_in_a_bucket(
    s3: Any, study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Run, run again, grow, extend, read: every object in the bucket is bit for bit the local cube's file."""
    monkeypatch.chdir(tmp_path)
    url, local = "s3://bucket/one/tiny.zarr", tmp_path / "r" / "tiny.zarr"
    for seeds, analyses, stages in ((1, "sharing = {}", 4), (2, "sharing = {}\ninverse = {}", 4)):
        file = study(seeds, analyses)
        for computed in (stages, 0) if seeds == 1 else (stages,):
            code, out, err = modhook_run("run", file, "--out", "s3://bucket/one")
            assert code == 0, err
            assert f"{computed} stages computed" in out
            assert f"the cube is {url}" in out
        assert modhook_run("run", file, "--out", "r")[0] == 0
        assert untimed(s3.files("one/tiny.zarr")) == untimed(local_files(local))
    assert s3.names("one") == {f"tiny.zarr/{k}" for k in local_files(local)}  # no marker, no probe is left
    # plain xarray and modhook's readers
    with xr.open_datatree(url, engine="zarr", chunks=None) as tree, open_cube(local) as same:
        xr.testing.assert_identical(tree["scores"].to_dataset().load(), same["scores"].to_dataset().load())
    with open_cube(url) as tree:
        assert masks_from(tree, seed=2, stage="add") == masks_from(local, seed=2, stage="add")
    assert modhook_run("show", url)[1] == modhook_run("show", local)[1]
    code, out, _ = modhook_run("plot", url, "--format", "svg", "--figure", "addmul_performance")
    assert (code, "tiny-figures/addmul_performance.svg" in out.split()) == (0, True)
    code, out, _ = modhook_run("report", url)
    assert (code, Path(out.strip())) == (0, tmp_path / "tiny-report.html")
    # starting over asks first, and then nothing of the old cube is left
    code, _, err = modhook_run("run", file, "--out", "s3://bucket/one", "--fresh")
    assert (code, f"would delete {url}" in err) == (2, True)
    place_of(url).remove()
    assert s3.names("one") == set()


def test_a_file_is_one_request(s3: Any, study: Callable[..., Path], modhook_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a file does not ask for its size first, and writing a cube's layout asks for nothing."""
    asked: list[tuple[str, str]] = []
    whole = S3FileSystem._call_s3

    async def told(self: Any, method: str, *args: Any, **named: Any) -> Any:
        asked.append((method, str(named.get("Key", ""))))
        return await whole(self, method, *args, **named)

    monkeypatch.setattr(S3FileSystem, "_call_s3", told)
    for finished in (False, True):
        asked.clear()
        assert modhook_run("run", study(1), "--out", "s3://bucket/requests")[0] == 0
        requests = Counter(method for method, _ in asked)
        metadata = [key for method, key in asked if method == "get_object" and key.endswith("/zarr.json")]
        assert set(metadata) == {"requests/tiny.zarr/zarr.json"}
        assert requests["get_object"] > 100
        assert requests["head_object"] + requests["list_objects_v2"] < requests["get_object"] / (10 if finished else 2)


def test_another_study_is_refused(
    s3: Any, study: Callable[..., Path], made: Path, modhook_run: Run, local_files: Any
) -> None:
    """A cube in a bucket is protected as a local one is: another study does not write into it."""
    for name, content in local_files(made / "half/tiny.zarr").items():
        s3.put(f"two/tiny.zarr/{name}", content)
    before = s3.files("two")
    code, _, err = modhook_run("run", study(2), "--out", "s3://bucket/two", "--set", "masks.beta=0.5")
    assert (code, "holds another study" in err) == (2, True)
    assert s3.files("two") == before


def test_leftovers_of_a_killed_creation(s3: Any) -> None:
    """What a killed creation left is no cube, is removed by the next creation, and nothing else is."""
    for key in ("three/.a.zarr.partial", "three/a.zarr/runs/zarr.json", "three/a.zarr/old/c/0", "three/a.zarrs/mine"):
        s3.put(key)
    with pytest.raises(CubeError, match=r"not a modhook cube|no cube at"):
        open_cube("s3://bucket/three/a.zarr")
    create("s3://bucket/three/a.zarr", PLAN)
    assert open_cube("s3://bucket/three/a.zarr").attrs["modhook_format"] == 2
    assert "old/c/0" not in s3.names("three/a.zarr")
    assert s3.files("three/a.zarrs") == {"mine": b"x"}
    assert ".a.zarr.partial" not in s3.names("three")


def test_the_root_is_written_last(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a creation breaks off there is no cube yet; the next one makes it."""
    from zarr.storage import FsspecStore

    whole, fuse = FsspecStore.set, [0]

    async def broken(self: FsspecStore, key: str, *args: Any, **kwargs: Any) -> None:
        fuse[0] -= 1
        if fuse[0] < 0:
            raise RuntimeError("stands for a process that dies")
        await whole(self, key, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FsspecStore, "set", broken)
        for writes in (0, 5, 11):
            fuse[0] = writes
            with pytest.raises(RuntimeError, match="stands for"):
                create("s3://bucket/four/a.zarr", PLAN)
            assert "zarr.json" not in s3.names("four/a.zarr")
    assert create("s3://bucket/four/a.zarr", PLAN).run_dims == {"seed": [1]}
    with pytest.raises(CubeError, match="exists already"):
        create("s3://bucket/four/a.zarr", PLAN)


def test_what_is_not_a_cube_is_left_alone(s3: Any, study: Callable[..., Path], modhook_run: Run) -> None:
    """Somebody's objects in the place of the cube are neither mixed with ours nor deleted, not even with --fresh."""
    s3.put("five/tiny.zarr/thesis.txt", b"three years of work")
    for more in ((), ("--fresh", "--yes")):
        code, _, err = modhook_run("run", study(1), "--out", "s3://bucket/five", *more)
        assert (code, "s3://bucket/five/tiny.zarr is not a modhook cube" in err) == (2, True)
    assert s3.files("five") == {"tiny.zarr/thesis.txt": b"three years of work"}


def test_a_bucket_that_is_not_there(s3: Any, study: Callable[..., Path], modhook_run: Run) -> None:
    """A mistyped bucket is one sentence, before anything is computed; so is a mistyped name."""
    code, out, err = modhook_run("run", study(1), "--out", "s3://nobucket/x")
    assert (code, out) == (2, "")
    assert "s3://nobucket/x is not writable (The specified bucket does not exist)" in err
    code, _, err = modhook_run("show", "s3://bucket/none.zarr")
    assert (code, "there is no cube at s3://bucket/none.zarr" in err) == (2, True)


def test_one_writer_on_a_machine(s3: Any, warm: Warm) -> None:
    """The lock of a URL keeps a second process of this machine out and dies with its holder."""
    url = "s3://bucket/six/a.zarr"
    code = "import signal, sys\nfrom modhook.cube import writer_lock\n"
    code += "with writer_lock(sys.argv[1]):\n print('held', flush=True)\n signal.pause()"
    process = warm.start("-c", code, url + "/")
    assert process.stdout.readline() == "held\n"
    with pytest.raises(CubeError, match=re.escape(f"is being written by another modhook run (process {process.pid})")):
        create(url, PLAN)
    process.kill()
    process.communicate()
    with writer_lock(url):
        create(url, PLAN)


@pytest.mark.parametrize(
    ("module", "url", "told"),
    [("s3fs", "s3://bucket/x.zarr", 'pip install "modhook[s3]"'), ("gcsfs", "gs://bucket/x.zarr", "gcsfs")],
)
def test_a_missing_package(module: str, url: str, told: str, warm: Warm) -> None:
    """Where the package for a kind of URL is not installed, the sentence says which one to install."""
    code = f"import sys\nsys.modules[{module!r}] = None\nfrom modhook.cli import main\nmain(['show', {url!r}])"
    done = warm.run("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
