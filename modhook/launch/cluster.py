"""A study's runs on dask workers: one run per task, one event per thing worth saying."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import dask
from distributed import Client, Future, KilledWorker
from distributed.comm.addressing import get_address_host_port, parse_address
from distributed.comm.registry import get_backend

from modhook.errors import RunError, UserError
from modhook.launch.job import Job, Refused, sent
from modhook.launch.local import local_cluster
from modhook.launch.worker import compute_here, given, quiet, stop_here, topic
from modhook.plugin.interfaces import Tracker
from modhook.run.failure import stops_the_study
from modhook.run.one import Done, Run, Work, compute_run, failures, mark_failed, missing

CONNECT = "20s"
"""How long a scheduler may take to answer."""
STOPPING = 120.0
"""Seconds that runs under way have to end their step, or what comes between steps, after Ctrl-C."""
_LOOK = 2.0
"""Seconds between two looks at whether the scheduler still answers."""


@attrs.frozen
class OnWorkers:
    """A way to compute runs (`modhook.run.one.Spread`): on `number` workers of this machine, or those of a scheduler."""

    number: int | None = None
    scheduler: str | None = None

    def __attrs_post_init__(self) -> None:
        """Raise `UserError` for what is no address: a client that was given one waits for its own end."""
        if self.scheduler is not None:
            try:
                scheme, _ = parse_address(self.scheduler)
                get_backend(scheme)
                if scheme in ("tcp", "tls") and get_address_host_port(self.scheduler)[1] > 65_535:
                    raise ValueError("there is no such port")
            except ValueError as error:
                raise UserError(
                    f"--scheduler {self.scheduler!r} is no address of a dask scheduler ({str(error).splitlines()[0]}); write one such "
                    "as tcp://host:8786."
                ) from error

    def __call__(self, work: Work, runs: Sequence[Run]) -> Iterator[Done]:
        """Yield what became of each run, in the order in which they end."""
        left = [run for run in runs if missing(work, run)]
        for run in runs:
            if run not in left:
                yield compute_run(work, run)
        if not left:
            return
        job = sent(work, uuid.uuid4().hex[:12])
        with self._client(job, len(left), work) as client:
            yield from _Session(client, job, work, left).results()

    @contextlib.contextmanager
    def _client(self, job: Job, runs: int, work: Work) -> Iterator[Client]:
        quiet()
        tracker, said = work.tracker, work.prepared.study.run.threads
        why = "" if said else " (the study sets no [run] threads)"
        each = f"{job.threads} thread{'s' if job.threads != 1 else ''} each{why}"
        with contextlib.ExitStack() as stack:
            if self.scheduler is None:
                number = min(self.number or 1, runs)
                tracker.message(f"{number} worker{'s' if number != 1 else ''}, {each}")
                where: Any = stack.enter_context(local_cluster(number, job.threads, job_device(job)))
            else:
                where = self.scheduler
            try:
                client = stack.enter_context(Client(where, timeout=CONNECT, set_as_default=False))
            except (OSError, TimeoutError, ValueError) as error:
                raise UserError(
                    f"no dask scheduler answers at {self.scheduler!r} ({str(error).splitlines()[0]}); start one with "
                    "`dask scheduler`, or use --workers N."
                ) from error
            if self.scheduler is not None:
                tracker.message(f"the workers of {self.scheduler}, {each}")
                _warn(client, job, tracker)
            yield client


class _Session:
    """Runs under way on one client."""

    def __init__(self, client: Client, job: Job, work: Work, runs: Sequence[Run]) -> None:
        self.client, self.job, self.work = client, job, work
        self.events: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self.running: set[str] = set()
        self.total, self.done, self.failed = len(runs), 0, 0
        client.subscribe_topic(topic(job), lambda event: self.events.put(tuple(event[1])))
        gpu = {"resources": {"GPU": 1}} if job_device(job).type == "cuda" else {}
        # Sent once, as a task: a worker that takes the place of a lost one gets it again. dask warns of more than 10 MB.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1PB"}):
            shared = client.submit(given, job, key=f"study-{job.token}")
        self.futures: dict[str, tuple[Run, Future[Any]]] = {}
        for number, run in enumerate(runs):
            # Earlier runs first: a study that is stopped has whole seeds.
            future = client.submit(
                compute_here, shared, run, key=f"run-{job.token}-{number}", pure=False, priority=-number, **gpu
            )
            self.futures[run.text] = (run, future)
        for text, (_, future) in self.futures.items():
            future.add_done_callback(lambda _, text=text: self.events.put(("ended", text, None)))

    def results(self) -> Iterator[Done]:
        """Yield what became of each run; on an error the others are cancelled."""
        tracker = self.work.tracker
        try:
            while self.futures:
                try:
                    kind, run, text = self.events.get(timeout=_LOOK)
                except queue.Empty:
                    if self.client.status not in ("running", "connecting"):
                        raise self._lost() from None
                    continue
                if kind == "started":
                    if run in self.running:
                        tracker.message(f"run {run} goes on elsewhere: its worker was lost")
                    self.running.add(run)
                elif kind == "message":
                    tracker.message(text)
                    continue
                elif run in self.futures:
                    one = self._ended(*self.futures.pop(run))
                    self.running.discard(run)
                    self.done, self.failed = self.done + (not _bad(one)), self.failed + _bad(one)
                    yield one
                tracker.study_progress(self.done, self.failed, len(self.running), self.total)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self.client.cancel([future for _, future in self.futures.values()], force=True)

    def _stop(self) -> None:
        """Let every run under way end after its step, with a checkpoint; runs that wait are not begun."""
        self.work.tracker.message("stopping after this step; Ctrl-C again stops at once.")
        while not self.events.empty():  # what has begun and ended up to now
            kind, run, _ = self.events.get()
            if kind == "started":
                self.running.add(run)
            elif kind == "ended":
                self.running.discard(run)
        with contextlib.suppress(Exception):  # a worker or the scheduler may be gone
            self.client.cancel([f for text, (_, f) in self.futures.items() if text not in self.running], force=True)
            self.client.run(stop_here, self.job.token, on_error="ignore")
        until = time.monotonic() + STOPPING
        while self.running and (left := until - time.monotonic()) > 0:
            try:
                kind, run, _ = self.events.get(timeout=min(left, _LOOK))
            except queue.Empty:
                if self.client.status not in ("running", "connecting"):
                    return
                continue
            if kind == "ended":
                self.running.discard(run)

    def _ended(self, run: Run, future: Future[Any]) -> Done:
        if future.status == "finished":
            answer: Done | Refused = future.result()
            if isinstance(answer, Done):
                return answer
            raise answer.kind(f"{run.text}: {answer.text}")
        if future.status != "error":
            raise self._lost()
        error = future.exception()
        if isinstance(error, KilledWorker):
            stages = {s: self.work.cube.status(run.labels, s) for s in self._stages(run)}
            reason = f"its worker died {error.allowed_failures + 1} times while computing it; is there enough memory?"
            mark_failed(self.work.cube, run, stages, reason)
            found = sum(state == "done" for state in stages.values())
            return Done(run, 0, found, tuple(failures(self.work, run, "{}")))
        if error is not None and stops_the_study(error):
            raise error
        raise RunError(
            f"a worker cannot compute {run.text}: {type(error).__name__}: {error}; is the same modhook, with the same plugins, "
            "installed on every worker?"
        ) from error

    def _stages(self, run: Run) -> tuple[str, ...]:
        return self.work.prepared.stages(self.work.prepared.tasks[run.index])

    def _lost(self) -> RunError:
        return RunError(
            "the connection to the scheduler is lost; every finished stage is safe in the cube, and the same command continues."
        )


def job_device(job: Job) -> Any:
    """Return the torch device that a job's runs are computed on."""
    import torch

    return torch.device(job.device)


def _warn(client: Client, job: Job, tracker: Tracker) -> None:
    """Say what keeps a cluster from being used as one may think."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        tracker.message("no worker has joined the scheduler yet; the runs wait for one")
    elif job_device(job).type == "cuda" and not any(w["resources"].get("GPU") for w in workers):
        tracker.message("no worker offers a GPU; the runs wait for one started with --resources GPU=1")
    if any(w["nthreads"] > 1 for w in workers):
        tracker.message("a worker computes one run at a time: start workers with --nthreads 1, and more of them")


def _bad(one: Done) -> bool:
    return bool(one.failed or one.mistake)
