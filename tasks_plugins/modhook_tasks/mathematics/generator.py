"""Generates questions with the package mathematics_dataset, in parallel processes, in the layout of the official data."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from rich.progress import MofNCompleteColumn

from modhook.errors import DataError
from modhook.noise.seeding import derive
from modhook_tasks.data.progress import progress
from modhook_tasks.mathematics.modules import TRAIN, Module
from modhook_tasks.mathematics.patched import PACKAGE, installed

CHUNK = 100
"""Questions of one job. It decides what is generated: every job has a seed of its own."""


def generate(
    module: Module, files: Mapping[str, str], sizes: tuple[int, int], folder: Path, workers: int | None = None
) -> None:
    """Write `files` ({set: path in `folder`}), `sizes` questions per train and per test set; the same in every run.

    Args:
        module: which questions.
        files: from `Module.files`.
        sizes: questions of each train set, and of each of the others; repeats are among them.
        folder: where the files go.
        workers: processes; all cores by default. They do not change what is generated.

    Raises:
        DataError: the package is missing, another version, or fails.
    """
    if not installed():
        raise DataError(
            f'task.source = "generated" needs the package {PACKAGE}; install it with `pip install "modhook[mathematics]"`.'
        )
    jobs = [job for found in files for job in _jobs(module, found, sizes[0] if found in TRAIN else sizes[1])]
    texts = dict.fromkeys(files, "")
    total = sum(job["count"] for job in jobs)
    with progress(f"generating {total:,} questions of {module.name}", MofNCompleteColumn()) as bar:
        task = bar.add_task("", total=total)
        for job, text in zip(jobs, _answers(jobs, workers), strict=True):
            texts[job["set"]] += text
            bar.advance(task, job["count"])
    for found, name in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(texts[found], encoding="ascii")


def _jobs(module: Module, found: str, size: int) -> Iterator[dict[str, Any]]:
    """Yield what to ask the workers for a set of `size` questions."""
    name = module.harder if found == "extrapolate" else module.name
    for number, start in enumerate(range(0, size, CHUNK)):
        seed = derive("mathematics", found, str(name), number)
        yield {"set": found, "area": module.area, "name": name, "seed": seed, "count": min(CHUNK, size - start)}


def _answers(jobs: Sequence[Mapping[str, Any]], workers: int | None) -> Iterator[str]:
    """Yield the text of every job, in their order, from several processes."""
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        complaints = stack.enter_context(tempfile.TemporaryFile("w+"))
        processes = [
            stack.enter_context(_worker(complaints)) for _ in range(min(workers or os.cpu_count() or 1, len(jobs)))
        ]
        pool = ThreadPoolExecutor(len(processes))
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(_kill, processes)  # first, so that no thread waits any more
        for process in processes:
            idle.put(process)
        futures = [pool.submit(_ask, job, idle) for job in jobs]
        for future in futures:
            try:
                yield "".join(f"{question}\n{answer}\n" for question, answer in json.loads(future.result()))
            except (OSError, ValueError) as error:
                complaints.seek(0)
                reason = (complaints.read().splitlines() or ["it ended without a word"])[-1]
                raise DataError(f"the package {PACKAGE} failed to generate questions: {reason}.") from error


def _kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


@contextlib.contextmanager
def _worker(complaints: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process that generates; it is dead afterwards."""
    command = [sys.executable, "-W", "ignore", "-m", "modhook_tasks.mathematics.worker"]
    path = os.pathsep.join(filter(None, sys.path))
    fixed = {"PYTHONHASHSEED": "0", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=pipe, stdout=pipe, stderr=complaints, text=True, env=os.environ | fixed
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()  # a job that a dead process never read is dropped


def _ask(job: Mapping[str, Any], idle: queue.SimpleQueue[subprocess.Popen[str]]) -> str:
    """Return a worker's answer to a job, one line of JSON; an empty text if the worker is dead."""
    worker = idle.get()
    try:
        assert worker.stdin is not None  # it is a pipe
        assert worker.stdout is not None
        worker.stdin.write(f"{json.dumps(job)}\n")
        worker.stdin.flush()
        return worker.stdout.readline()
    finally:
        idle.put(worker)
