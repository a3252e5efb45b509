"""What runs inside a dask worker: the task itself, and the settings of workers that modhook starts."""

from __future__ import annotations

import logging
import signal

from distributed import Worker, get_worker

from modhook.launch.job import Job, Refused, compute, stop
from modhook.run.one import Done, Run

QUIET = (
    "distributed",
    "distributed.nanny",
    "distributed.worker",
    "distributed.scheduler",
    "distributed.core",
    "distributed.preloading",
    "tornado",
)


def topic(job: Job) -> str:
    """Return the name of the events that a job's workers send."""
    return f"modhook-{job.token}"


def given(job: Job) -> Job:
    """Return the job: a task of its own, so that the job travels once and survives the worker that had it."""
    return job


def compute_here(job: Job, run: Run) -> Done | Refused:
    """Compute one run in this worker."""
    worker = get_worker()
    events = topic(job)
    return compute(job, run, lambda kind, text: worker.log_event(events, (kind, run.text, text)))


def stop_here(token: str) -> None:
    """End this worker's run of a job after its step, with a checkpoint."""
    stop(token)


def dask_setup(worker: Worker) -> None:
    """Leave Ctrl-C and what there is to say to the process that started the workers (dask calls this as a preload)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet()


def quiet() -> None:
    """Silence dask's own log: what matters of it is said by modhook."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
