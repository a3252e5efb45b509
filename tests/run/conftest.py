"""A study that runs in a second, and ways to run it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import small_study

# Helpers beside the tests are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parent))

TINY = small_study(train="validate_every = 3", masks="beta = 1e-4\nvalidate_every = 2")


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """The study file's text."""
    return TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The study file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def made(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its finished cube of two seeds: to be copied, never changed."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.toml").write_text(tiny_text)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder)])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def modhook_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: returns exit code, output, errors."""
    from modhook.cli import main

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return run


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A way to stop runs, and what they did: a `stopping.Stop`."""
    from stopping import Stop

    return Stop(monkeypatch)


@pytest.fixture(scope="session")
def _known() -> dict[tuple[Any, ...], Path]:
    """The cubes of `undisturbed`, by their study's text and options."""
    return {}


@pytest.fixture
def undisturbed(
    _known: dict[tuple[Any, ...], Path], tmp_path_factory: pytest.TempPathFactory, modhook_run: Callable[..., tuple[int, str, str]]
) -> Callable[..., Path]:
    """Return the cube that a study gives when nothing comes between; the same study is computed once, and not to be changed."""

    def cube(file: Path, *options: Any) -> Path:
        key = (file.read_text(), *options)
        if key not in _known:
            folder = tmp_path_factory.mktemp("undisturbed")
            (folder / "tiny.toml").write_text(key[0])
            code, _, err = modhook_run("run", folder / "tiny.toml", "--out", folder, *options)
            assert code == 0, err
            assert not (folder / "tiny.zarr.checkpoints").exists()
            _known[key] = folder / "tiny.zarr"
        return _known[key]

    return cube


def _contents(cube: Path) -> dict[str, str]:
    """Hash every file of a cube, the timing group aside."""
    files = (p for p in sorted(cube.rglob("*")) if p.is_file())
    return {
        str(p.relative_to(cube)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.relative_to(cube).parts[0] != "timing"
    }


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Hashes of a cube's files, the timing group aside."""
    return _contents
