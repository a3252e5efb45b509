"""Processes that begin with everything imported: one Python imports modhook, and each process that a test starts is a fork of it.

It is a process of its own, with its own arguments, environment, folder, pipes and exit code, and takes signals as any other; what is
not spent again are the seconds in which torch is imported. What is tested *about* starting or importing starts with `subprocess`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

LOADED = (
    "torch._dynamo", "torch._decomp", "torch._meta_registrations", "torch.distributed", "numba.np.npyfuncs", "distributed", "jinja2",
    "modhook.cli.main", "modhook.run", "modhook.launch", "modhook.report", "modhook_plugins.register", "modhook_tasks.register",
)  # fmt: skip
"""What a run imports. Nothing of it starts a thread, which a fork would lack."""


class Process:
    """A started process: as much of `subprocess.Popen`, in text mode, as tests use."""

    def __init__(self, host: socket.socket, arguments: list[str], env: dict[str, str], cwd: str) -> None:
        reads, writes = zip(*(os.pipe() for _ in range(3)), strict=True)
        socket.send_fds(host, [json.dumps([arguments, env, cwd]).encode()], writes)
        for end in writes:
            os.close(end)
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end in reads[:2])
        self._told = os.fdopen(reads[2], "rb", buffering=0)  # the process' id, and in the end how it ended, by its keeper
        self.pid = int.from_bytes(self._told.read(4), "little")
        assert self.pid, f"no process was started; python {__file__} 0 says why"
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; that of a killed process is the signal's number, negative."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self._told.read(4), "little"))
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what is left of both outputs, at their end."""
        found = ["", ""]

        def read(i: int) -> None:
            found[i] = (self.stdout, self.stderr)[i].read()

        readers = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(2)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
        self.wait(timeout)
        for stream in (self.stdout, self.stderr):
            stream.close()
        return found[0], found[1]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in (self.stdout, self.stderr):
            stream.close()
        self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.returncode is None and not select.select([self._told], [], [], 0)[0]:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """Starts processes. Where there is no fork, or none that is sound, they are started from nothing."""

    def __init__(self) -> None:
        self._forks = sys.platform == "linux"
        if self._forks:
            self._host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, __file__, str(theirs.fileno())]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._python = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env, **silent)
            theirs.close()

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: str | Path | None = None) -> Any:
        """Start `python -m MODULE ...`, `-c CODE ...` or `FILE ...`; its input is empty."""
        told = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"}
        given, folder = [str(a) for a in arguments], str(cwd or Path.cwd())
        if self._forks:
            return Process(self._host, given, told, folder)
        outputs: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, *given], env=told, cwd=folder, text=True, **outputs)

    def run(self, *arguments: str | Path, **where: Any) -> subprocess.CompletedProcess[str]:
        """Start it, and wait for its end."""
        process = self.start(*arguments, **where)
        out, err = process.communicate()
        return subprocess.CompletedProcess([str(a) for a in arguments], process.returncode, out, err)

    def close(self) -> None:
        """End what is forked."""
        if self._forks:
            self._host.close()
            self._python.wait()


def serve(host: socket.socket) -> tuple[list[str], dict[str, str], str]:
    """Fork for every request, and return in the fork, with what it is to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, ends, *_ = socket.recv_fds(host, 2**20, 3)
        if not message:
            os._exit(0)
        if not os.fork():
            host.close()
            out, err, told = ends
            if process := os.fork():  # this one is the keeper
                os.close(out)
                os.close(err)
                os.write(told, process.to_bytes(4, "little"))
                os.write(told, os.waitpid(process, 0)[1].to_bytes(4, "little"))
                os._exit(0)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for own, standard in ((nothing, 0), (out, 1), (err, 2)):
                os.dup2(own, standard)
                os.close(own)
            os.close(told)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            arguments, env, cwd = json.loads(message)
            return arguments, env, cwd
        for end in ends:
            os.close(end)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def begin(arguments: list[str], env: dict[str, str], cwd: str, installed: list[str]) -> None:
    """Do what `python ARGUMENTS` does when it has started."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    what, *rest = arguments
    first = {"-m": cwd, "-c": ""}.get(what, os.path.dirname(os.path.abspath(what)))
    sys.path[:] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    importlib.invalidate_caches()
    if what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    others = {str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    installed = [p for p in sys.path if p not in others]
    sys.path.pop(0)
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    begin(*serve(socket.socket(fileno=int(sys.argv[1]))), installed)
