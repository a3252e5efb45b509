"""What a worker is sent, and how it computes one run of it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from modhook.cube import open_for_writing
from modhook.errors import GoneError, ModhookError, RunError, StorageError, UserError
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins, plugins
from modhook.plugin.offered import Offered, offering, offers
from modhook.run.build import build_task
from modhook.run.data import data_fingerprint
from modhook.run.failure import gone_or_damaged
from modhook.run.layout import prepare, versions
from modhook.run.live import Live
from modhook.run.one import Done, Run, Work, compute_run
from modhook.run.sources import same_on_worker, sources
from modhook.run.trackers import make_trackers
from modhook.steps.checkpoint import stop_loops
from modhook.study import Study, points, resolved, restore

# Runs set torch's global random state: two of them never share a process at the same time.
_ONE = threading.Lock()
_STOPPED: set[str] = set()
"""Jobs that are to end: Ctrl-C reaches only the process that started them."""
_now = ""
"""The job that this process computes a run of."""


@attrs.frozen(eq=False)
class Job:
    """A study as it travels to workers: everything but its data and code of its own files, which each worker loads itself.

    Attributes:
        table: the study, from `modhook.study.resolved`: no object of a class that the worker may not know yet.
        file: of the study, beside which its files are; None for a study that has none.
        path: of the cube, as every worker must see it.
        versions: of the sender; a worker with others would not compute the same numbers.
        threads: of each worker.
    """

    table: Mapping[str, Any]
    file: str | None
    variant: str | None
    path: str
    versions: Mapping[str, str]
    device: str
    trackers: tuple[str, ...]
    threads: int
    retry: bool
    only_control: bool
    token: str
    """Names this job: a worker loads the data of a job once."""
    offers: tuple[Offered, ...] = ()
    """Tasks, networks and weights that live in the sender's memory."""


@attrs.frozen
class Refused:
    """A worker's answer where it cannot compute: the sentence of its error, and which error it is here."""

    text: str
    kind: type[UserError | StorageError | RunError]


def stop(token: str) -> None:
    """Let the run of a job that this process computes keep its checkpoint and end, and compute no further one of that job."""
    _STOPPED.add(token)
    if token == _now:
        stop_loops()


def compute(job: Job, run: Run, say: Callable[[str, str], None]) -> Done | Refused:
    """Compute one run in this process. `say(kind, text)` is told about its progress."""
    global _now
    with _ONE:
        _now = job.token
        stop_loops(job.token in _STOPPED)
        before = torch.get_num_threads()
        torch.set_num_threads(job.threads)
        tracker: Tracker = Tracker()
        try:
            # What a person sees is told at a distance; logs are written here.
            logs = [name for name in job.trackers if name != "progress"]
            with offering(job.offers), gone_or_damaged(job.path):  # it was whole, when the job was sent
                tracker = make_trackers(logs, _installed(job), job.path, relay=Relay(say), live=Live(job.path))
                return compute_run(_work(job, tracker), run)
        except KeyboardInterrupt:
            return Refused("stopped", RunError)
        except ModhookError as error:
            kinds = (UserError, GoneError, StorageError)
            return Refused(str(error), next((k for k in kinds if isinstance(error, k)), RunError))
        except OSError as error:
            return Refused(f"{job.path} cannot be written: {error.strerror or error}.", StorageError)
        finally:
            _now = ""
            stop_loops(False)
            tracker.close()
            torch.set_num_threads(before)


class Relay(Tracker):
    """Tells a distant reader what a person wants to know of one run: begin, finished stages, messages."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say, self._run = say, ""

    def run_started(self, label: str) -> None:
        """Tell it."""
        self._run = label
        self._say("started", label)

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Tell the accuracies."""
        shown = ", ".join(
            f"{n.partition('/')[2]} {100 * v:.1f} %" for n, v in scores.items() if n.startswith("accuracy/")
        )
        self._say("message", f"  {self._run}, {stage}: {shown or 'done'}")

    def message(self, text: str) -> None:
        """Pass it on."""
        self._say("message", f"  {self._run}: {text.strip()}")


def sent(work: Work, token: str) -> Job:
    """Return what workers need of a study."""
    study = work.prepared.study
    return Job(
        table=resolved(study),
        # Workers elsewhere have another current folder.
        file=None if study.path is None else str(study.path.absolute()),
        variant=study.variant,
        path=str(work.cube.path),
        versions=versions(),
        device=study.run.device,
        trackers=study.run.trackers,
        threads=study.run.threads or 1,
        retry=work.retry,
        only_control=work.only_control,
        token=token,
        offers=offers(),
    )


def _installed(job: Job) -> Plugins:
    """Return what this worker has, with the code of the study's own files."""
    return plugins() if job.file is None else plugins().beside(Path(job.file).parent)


def _study(job: Job, installed: Plugins) -> Study:
    """Return the job's study, where its files are."""
    study = restore(job.table, plugins=installed)
    if job.file is None:
        return study
    file, variant = Path(job.file), job.variant
    every = (attrs.evolve(point, study=attrs.evolve(point.study, path=file, variant=variant)) for point in study.grid)
    return attrs.evolve(study, grid=tuple(every), path=file, variant=variant)


def _work(job: Job, tracker: Tracker) -> Work:
    return attrs.evolve(_loaded(job.token, _Holder(job)), tracker=tracker)


class _Holder:
    """A job that is equal to any other, so that a cache looks at its token only."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Holder)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=1)
def _loaded(token: str, holder: _Holder) -> Work:
    """Return a job with its data, loaded and compared with what the cube was laid out for."""
    job = holder.job
    if differing := [n for n, v in versions().items() if job.versions.get(n) != v]:
        there = ", ".join(f"{n} {versions()[n]} (here: {job.versions.get(n)})" for n in differing)
        raise UserError(f"a worker has {there}; results would differ, so install the same versions on every worker.")
    installed = _installed(job)
    study = _study(job, installed)
    known: dict[str, Any] = {}
    tasks = []
    for point in points(study):
        key = repr(point.study.task)
        if key not in known:
            known[key] = build_task(point.study, installed)
        tasks.append(known[key])
    cube = open_for_writing(job.path)
    if cube.attrs["data"] != {str(i): data_fingerprint(task) for i, task in enumerate(known.values())}:
        raise UserError("a worker found other data than this machine; give every worker the same files.")
    if file := same_on_worker(cube, sources(study, installed)):
        raise UserError(f"a worker found another {file} than this machine; give every worker the same files.")
    device = torch.device(job.device)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"a worker cannot use device {str(device)!r} ({str(error).splitlines()[0]}); give --device cpu or another one, or workers "
            "that have it."
        ) from error
    return Work(
        prepare(study, installed, tasks),
        cube,
        installed,
        tracker=Tracker(),
        device=device,
        retry=job.retry,
        only_control=job.only_control,
    )
