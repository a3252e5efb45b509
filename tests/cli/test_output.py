"""Output that somebody else can break: ASCII terminals, readers that leave, full disks, closed streams, a deleted folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STUDY = """
[study]
name = "tiny"
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "fnn"
hidden = [8]
[train]
steps = 2
batch = 8
[masks]
steps = 2
samples = 2
[analyses]
sharing = {}
[run]
threads = 1
"""
Shell = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study and its cube, `results/tiny.zarr`."""
    from modhook.cli import main

    made = tmp_path_factory.mktemp("output")
    (made / "tiny.toml").write_text(STUDY)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(made / "tiny.toml"), "--out", str(made / "results"), "--set", "study.seeds=2"])
    assert stop.value.code == 0
    return made


@pytest.fixture
def shell(folder: Path) -> Shell:
    """Run a line of bash in the folder; `MODHOOK` stands for the command."""

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", line.replace("MODHOOK", f"{sys.executable} -m modhook")],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            check=False,
        )

    return run


def test_an_ascii_terminal(shell: Shell) -> None:
    """Tables, messages and names are written where no other sign can be: lines become -, |; other signs their escape."""
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for line in ("MODHOOK show results/tiny.zarr", "MODHOOK show results/tiny.zarr --format markdown"):
        found = shell(line, **ascii_only)
        assert (found.returncode, found.stderr) == (0, b""), found.stderr
        assert b"unmasked" in found.stdout
        assert found.stdout.isascii()
    found = shell("MODHOOK show 'results/\N{GREEK SMALL LETTER BETA}.zarr'", **ascii_only)
    assert (found.returncode, b"Traceback" in found.stderr, found.stderr.isascii()) == (2, False, True), found.stderr
    assert b"there is no cube at" in found.stderr


def test_a_path_in_a_locale_without_letters() -> None:
    """What Python could not decode of a path is printed as the bytes that it is, and a control character in it is not."""
    code = "from modhook.cli.output import tolerant; from modhook.cli.say import say; import os\n"
    code += "with tolerant(): say(os.fsdecode(b'caf\\xc3\\xa9 \\xc2\\x9b \\x1b \\xe9'))"
    mode = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    one = code.replace(" \\xe9", "")
    for text, wanted in ((one, b"caf\xc3\xa9 \\x9b \\x1b\n"), (code, b"caf\\udcc3\\udca9 \\udcc2\\udc9b \\x1b \\udce9\n")):
        done = subprocess.run([sys.executable, "-c", text], env={**os.environ, **mode}, capture_output=True, check=False)
        assert done.stdout == wanted, done.stderr


def test_signs_that_cannot_be_written() -> None:
    """Plain signs stand for the common ones; any other is its escape, and nothing is lost where all can be written."""
    import io

    from modhook.cli.output import Tolerant

    for encoding, expected in (("ascii", b"0.5 +- 0.1 |--\\u03b7"), ("utf-8", "0.5 ± 0.1 │──η".encode())):
        raw = io.BytesIO()
        stream = Tolerant(io.TextIOWrapper(raw, encoding))
        assert stream.write("0.5 ± 0.1 │──η") == 14
        stream.flush()
        assert raw.getvalue() == expected


def test_a_reader_that_leaves(shell: Shell) -> None:
    """`| head -1` gets its line; nothing is complained of, and the exit code is the command's own."""
    found = shell("MODHOOK show results/tiny.zarr --format csv | head -1; echo ${PIPESTATUS[0]}")
    assert found.stdout.count(b"\n") == 2
    assert (found.stdout.splitlines()[-1], found.stderr) == (b"0", b"")
    found = shell("MODHOOK run tiny.toml --set study.seeds=2 | true; echo ${PIPESTATUS[0]}")
    assert (found.stdout, b"Broken" in found.stderr, b"Traceback" in found.stderr) == (b"0\n", False, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_and_closed_streams(shell: Shell) -> None:
    """A full output is one sentence and exit code 1; a closed one takes nothing and is no failure."""
    found = shell("MODHOOK show results/tiny.zarr > /dev/full")
    assert found.returncode == 1
    assert found.stderr.decode().splitlines() == ["Error: the output cannot be written: No space left on device."]
    for line in ("show results/tiny.zarr >&-", "run tiny.toml --set study.seeds=2 <&- >&- 2>&-"):
        found = shell(f"MODHOOK {line}")
        assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_a_deleted_folder(shell: Shell, folder: Path) -> None:
    """In a folder that was deleted every command says so in one sentence: torch itself cannot be loaded there."""
    for line in ("show results/tiny.zarr", f"run {folder}/tiny.toml --out {folder}/results"):
        found = shell(f"mkdir gone && cd gone && rmdir ../gone && MODHOOK {line}")
        said = "Error: the current folder has been deleted; change to one that exists, and give the command again.\n"
        assert (found.returncode, found.stderr.decode()) == (2, said)


def test_an_environment_without_torch(shell: Shell, tmp_path: Path) -> None:
    """A library that cannot be imported, missing or broken, is named as such, and not as a defect of modhook."""
    for content in ("raise OSError('libtorch.so: cannot open shared object file')", "raise ImportError('no module')"):
        (tmp_path / "torch.py").write_text(content)
        found = shell("MODHOOK run tiny.toml", PYTHONPATH=str(tmp_path))
        text = found.stderr.decode()
        assert (found.returncode, "defect" in text, "Traceback" in text) == (2, False, False), text
        assert text.startswith("Error: torch cannot be imported in this Python environment (")


def test_what_is_a_defect_and_what_is_not() -> None:
    """The sentence follows from where an error was raised: a file of the user's, a library, the environment, or modhook."""
    import locale

    from modhook.cli.explain import explained

    def raised(function: Callable[[], object]) -> tuple[str, int]:
        try:
            function()
        except Exception as error:
            return explained(error)
        raise AssertionError("nothing was raised")

    text, code = raised(lambda: {}["mine"])
    assert (code, text.startswith("KeyError: 'mine' at "), f"{__file__}, line " in text) == (1, True, True)
    assert "a mistake in that file, which is not modhook's" in text
    text, code = raised(lambda: locale.setlocale(locale.LC_ALL, "xx_YY.nowhere"))
    assert (code, "LC_ALL" in text) == (2, True)
    text, code = raised(lambda: __import__("torch.nowhere"))
    assert (code, text.startswith("torch cannot be imported in this Python environment (ModuleNotFoundError")) == (
        2,
        True,
    )


def test_unfinished_reads_are_not_told_at_the_end() -> None:
    """What was being read when a damaged file ended a command is no further message after the one sentence."""
    code = (
        "import asyncio\nfrom modhook.cli.main import main\n"
        "loop = asyncio.new_event_loop()\nloop.create_task(asyncio.sleep(1))\nloop.run_until_complete(asyncio.sleep(0))\n"
        "main(['show', 'no-such-cube.zarr'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("Error: there is no cube at ")
