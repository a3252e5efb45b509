"""Processes that are forked from one Python are what `subprocess` would start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CODE = """
import os, signal, sys, threading
import here
print(sys.argv, os.getcwd(), os.environ["ONLY"], sys.stdin.read(), len(os.listdir("/proc/self/fd")), threading.active_count())
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, here.__file__, __name__, file=sys.stderr)
sys.exit(7)
"""


def test_it_is_the_process_that_subprocess_starts(warm: Any, tmp_path: Path) -> None:
    """Arguments, folder, environment, paths, input, open files, both outputs and the exit code, for code, a file and a module."""
    (tmp_path / "side").mkdir()
    (tmp_path / "side/here.py").write_text("")
    (tmp_path / "file.py").write_text(CODE)
    env = {**os.environ, "ONLY": "it", "PYTHONPATH": str(tmp_path / "side"), "OMP_NUM_THREADS": "1"}
    for arguments in (["-c", CODE, "a", "b"], ["file.py", "a"], ["-m", "file", "--x"]):
        expected = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=env, text=True, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        found = warm.run(*arguments, cwd=tmp_path, env=env)
        assert expected.returncode == 7, expected.stderr
        assert (found.returncode, found.stdout, found.stderr) == (7, expected.stdout, expected.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="there it is subprocess itself")
def test_everything_is_imported_and_signals_end_it(warm: Any) -> None:
    """torch is there from the first line; a signal, Ctrl-C and an error end the process as any; what it says is read meanwhile."""
    code = "import sys, time\nprint('torch' in sys.modules, flush=True)\ntime.sleep(600)"
    for sent in (signal.SIGKILL, signal.SIGINT):
        process = warm.start("-c", code)
        assert process.stdout.readline() == "True\n"
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
        assert process.returncode == -sent, err
        assert ("KeyboardInterrupt" in err) == (sent == signal.SIGINT)
    process.send_signal(signal.SIGKILL)  # of nobody
    failed = warm.run("-c", "1 / 0")
    assert (failed.returncode, failed.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
