"""Other places: memory, file URLs, and local folders that need nothing of all this."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from modhook.cube import beside, masks_from, place_of
from modhook.cube.place import Folder
from modhook.errors import CubeError

Run = Callable[..., tuple[int, str, str]]


def test_a_study_in_memory(study: Callable[..., Path], modhook_run: Run, local_files: Any, tmp_path: Path) -> None:
    """Within one process `memory://` holds a cube that is bit for bit the local one."""
    for out in ("memory://results", str(tmp_path)):
        assert modhook_run("run", study(1), "--out", out)[0] == 0
    code, out, _ = modhook_run("run", study(1), "--out", "memory://results")
    assert (code, "0 stages computed, 4 were there already" in out) == (0, True)
    memory = fsspec.filesystem("memory")
    found = {k.removeprefix("/results/tiny.zarr/"): memory.cat(k) for k in memory.find("/results/tiny.zarr")}
    expected = local_files(tmp_path / "tiny.zarr")
    assert found.keys() == expected.keys()
    assert [k for k in found if found[k] != expected[k] and not k.startswith("timing/")] == []
    assert masks_from("memory://results/tiny.zarr", 1, "mul") == masks_from(tmp_path / "tiny.zarr", 1, "mul")


def test_a_file_url_is_the_local_folder(study: Callable[..., Path], modhook_run: Run, tmp_path: Path) -> None:
    """`file://` names the same cube as its path, with the same lock and the same rename."""
    assert modhook_run("run", study(1), "--out", f"file://{tmp_path}")[0] == 0
    code, out, _ = modhook_run("run", study(1), "--out", tmp_path)
    assert (code, "0 stages computed" in out) == (0, True)
    assert place_of(f"file://{tmp_path}/a.zarr").path == tmp_path / "a.zarr"
    assert isinstance(place_of("file:///a"), Folder)


def test_files_beside_a_cube() -> None:
    """Figures of a local cube lie beside it, those of a cube at a URL in the current folder."""
    assert beside("results/scan.zarr", "-figures") == Path("results/scan-figures")
    assert beside(Path("/r/scan.zarr"), "-figures") == Path("/r/scan-figures")
    assert beside("s3://bucket/deep/scan.zarr/", "-figures") == Path("scan-figures")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a%2fb", "a%2F..%2Fb", "%2e%2e", "a\\b", "a\nb", "a?b", "a#b"]
)
@pytest.mark.parametrize("out", ["memory://results/deep", "/results/deep"])
def test_a_name_stays_below_its_folder(out: str, name: str) -> None:
    """No name, plain or encoded, makes a place outside of the output folder, local or at a URL."""
    with pytest.raises(CubeError, match="cannot be the name of a cube"):
        place_of(out) / name


def test_local_cubes_load_nothing_remote(tmp_path: Path) -> None:
    """A local cube is made and opened without s3fs and what belongs to it (xarray itself imports fsspec)."""
    code = f"""
import sys
from modhook.cube import Plan, create, open_cube
create({str(tmp_path / "a.zarr")!r}, Plan(attrs={{}}, run_dims={{"seed": [1]}}, variables=(), labels={{"runs": {{"stage": ["a"]}}}}))
open_cube({str(tmp_path / "a.zarr")!r}).load()
print(sorted({{"s3fs", "botocore", "aiohttp", "modhook.cube.remote"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
