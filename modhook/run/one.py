"""One run of a study (one seed at one sweep point): everything of it that the cube does not hold yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from modhook.cube import Cube, computing
from modhook.cube.values import fitted
from modhook.errors import CubeError, DamageError, RunError, UserError, listing
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Task, Tracker
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model
from modhook.run.checkpoints import Checkpoints
from modhook.run.complete import check_stages
from modhook.run.context import Context, Enough
from modhook.run.control import learn_controls
from modhook.run.failure import gone_or_damaged, reason_of, show_traceback, stops_the_study
from modhook.run.finished import Finished
from modhook.run.layout import Prepared
from modhook.run.once import Alike
from modhook.run.told import scores_of, settings_of
from modhook.steps.checkpoint import interrupts_end
from modhook.steps.ranks import known_to_all, rank, together

PATIENCE = 60.0
"""Seconds that a run waits for another process that computes it: a worker that lost its connection ends sooner."""


@attrs.frozen
class Work:
    """What every run of a study needs."""

    prepared: Prepared
    cube: Cube
    plugins: Plugins
    tracker: Tracker
    device: torch.device
    retry: bool = False
    """Whether what failed before is computed again."""
    only_control: bool = False
    """Whether a run ends with its control; analyses, which look at all stages, wait too."""
    people: Tracker | None = None
    """The tracker without what is written for `modhook watch`, where that is another one."""


@attrs.frozen
class Run:
    """One run: its sweep point's number, and its coordinates in the cube."""

    index: int
    labels: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The coordinates for people, and the run's name for locks: `seed=3, masks.beta=1e-05`."""
        return ", ".join(f"{k}={v}" for k, v in self.labels.items())


@attrs.frozen
class Done:
    """What became of one run."""

    run: Run
    computed: int = 0
    """Stages computed now."""
    found: int = 0
    """Stages that were in the cube already."""
    failed: tuple[str, ...] = ()
    """One line per failed stage or analysis: run, stage and reason."""
    mistake: str = ""
    """What the user has to mend, where that is why the run was left; nothing is marked failed then."""


Spread = Callable[[Work, Sequence[Run]], Iterable[Done]]
"""A way to compute runs: `modhook.run.together.in_turn`, or over workers (`modhook.launch`)."""


def missing(work: Work, run: Run) -> bool:
    """Return whether anything of a run is to be computed."""
    stages, analyses = _states(work, run)
    if work.only_control:
        later, analyses = after_control(work.prepared, work.prepared.tasks[run.index]), {}
        stages = {stage: state for stage, state in stages.items() if stage not in later}
    left = {*stages.values(), *analyses.values()} - {"done"}
    return bool(left) and (work.retry or "failed" not in stages.values()) and (work.retry or left != {"failed"})


def compute_run(work: Work, run: Run) -> Done:
    """Compute what is missing of one run. What goes wrong in it is recorded in the cube and returned, not raised.

    Raises `OSError` where the cube cannot be written any more.
    """
    if not missing(work, run):
        stages, _ = _states(work, run)
        if rank() == 0:
            _forget(work, run, stages)
        found = sum(s == "done" for s in stages.values())
        return Done(run, 0, found, tuple(failures(work, run, "failed before ({}); --retry-failed tries again")))
    with computing(work.cube.path, run.text, PATIENCE) if rank() == 0 else contextlib.nullcontext():
        return compute_held(work, run)


def compute_held(work: Work, run: Run) -> Done:
    """Do what `compute_run` does for a run of which something is missing, and that this process holds."""
    mistake = ""
    work.tracker.run_started(run.text)
    if rank() == 0:
        work.tracker.run_settings(settings_of(work.prepared.points[run.index].study, run.labels))
    try:
        before = _clear(work, run)
        try:
            with gone_or_damaged(work.cube.path), interrupts_end():
                _compute(work, run)
        except UserError as error:
            mistake = f"{run.text}: {error}"
        except Exception as error:
            if stops_the_study(error) or not known_to_all(error):
                raise
            if error.__cause__ is None:  # what failed a stage was shown there
                show_traceback(error, work.tracker)
            mark_failed(work.cube, run, _states(work, run)[0], reason_of(error))
    finally:
        if work.device.type == "cuda":  # what a failed run left must not starve the next one
            torch.cuda.empty_cache()
    done = [s for s, state in _states(work, run)[0].items() if state == "done"]
    if rank() == 0:
        work.tracker.run_scores(scores_of(work.cube, run.labels, work.prepared.tasks[run.index].metrics, done))
    work.tracker.run_finished(run.text)
    return Done(run, len(done) - before, before, tuple(failures(work, run, "{}")), mistake)


def after_control(prepared: Prepared, task: Task) -> frozenset[str]:
    """Return the stages that come after a task's control. Raises `UserError` if there is none."""
    stages = prepared.stages(task)
    if "control" not in prepared.protocol.masked_stages(task):
        study = prepared.study
        raise UserError(
            f"--only-control has nothing to end with: under the protocol {study.study.protocol!r} the task {study.task.name!r} has "
            f"no stage 'control' (its stages: {listing(stages)}); leave --only-control away."
        )
    return frozenset(stages[stages.index("control") + 1 :])


def failures(work: Work, run: Run, text: str) -> Iterator[str]:
    """Yield one line per failed stage and analysis of a run, with its reason in the place of `{}`."""
    stages, analyses = _states(work, run)
    for stage in (s for s, state in stages.items() if state == "failed"):
        yield f"{run.text}, {stage}: {text.format(work.cube.reason(run.labels, stage))}"
    for name in (n for n, state in analyses.items() if state == "failed"):
        reason = str(work.cube.read(f"runs/{name}_reason", run.labels).item())
        yield f"{run.text}, analysis {name}: {text.format(reason)}"


def mark_failed(cube: Cube, run: Run, stages: Mapping[str, str], reason: str) -> None:
    """Mark the first stage that is not done as failed, unless a stage says already why the run failed."""
    if "failed" not in stages.values():
        for stage in [s for s, state in stages.items() if state != "done"][:1]:
            cube.set_status(run.labels, stage, "failed", reason=reason)


def _states(work: Work, run: Run) -> tuple[dict[str, str], dict[str, str]]:
    """Return the state of every stage and of every analysis."""
    task, states = work.prepared.tasks[run.index], ("pending", "done", "failed")
    stages = {s: str(work.cube.status(run.labels, s)) for s in work.prepared.stages(task)}
    return stages, {n: states[int(work.cube.read(f"runs/{n}", run.labels))] for n in work.prepared.analyses}


def _clear(work: Work, run: Run) -> int:
    """Make failed stages pending again where that is asked for, and remove old checkpoints; return how many stages are done."""
    stages, _ = _states(work, run)
    for stage in (s for s, state in stages.items() if state == "failed" and work.retry):
        work.cube.set_status(run.labels, stage, "pending")
    done = [s for s, state in stages.items() if state == "done"]
    # What a killed process recorded of a stage or an analysis without marking it done is no record of what comes now.
    analyses = [n for n, state in _states(work, run)[1].items() if state != "done"]
    work.cube.forget(run.labels, [s for s in stages if s not in done], analyses)
    _forget(work, run, stages)
    return len(done)


def _forget(work: Work, run: Run, stages: Mapping[str, str]) -> None:
    """Remove the files of stages that are done, of a process that was killed before it could."""
    files, done = Checkpoints.of(work.cube.path), [s for s, state in stages.items() if state == "done"]
    for stage in done:
        files.remove(run.labels, stage)
        Alike(work.cube, run.labels, stage).remove_unneeded()
    for stage in done[:-1] if len(done) < len(stages) else done:  # the next stage is done
        files.carried(run.labels, stage).unlink(missing_ok=True)


def _compute(work: Work, run: Run) -> None:
    prepared, cube, labels = work.prepared, work.cube, dict(run.labels)
    study, layout = prepared.points[run.index].study, prepared.layouts[run.index].name
    task = prepared.tasks[run.index].for_seed(labels["seed"])
    model = build_model(study, task, work.plugins, labels["seed"]).to(work.device)
    later = after_control(prepared, task) if work.only_control else frozenset()
    context = Context(study, task, model, labels["seed"], labels, cube, layout, work.tracker, work.device, work.plugins, later)
    stages, analyses = _states(work, run)
    if set(stages.values()) != {"done"}:
        try:
            with contextlib.suppress(Enough):
                prepared.protocol.run(context)
            if not work.only_control:
                check_stages(study.study.protocol, prepared.protocol.stages(task), _states(work, run)[0])
        except RunError as error:
            if task.independent and not work.only_control and known_to_all(error):
                learn_controls(prepared, context)  # of the stages that are done
            raise
    if work.only_control:
        return
    learn_controls(prepared, context)
    wanted = [n for n, state in analyses.items() if state == "pending" or (state == "failed" and work.retry)]
    if not wanted:
        return
    context.load_weights(list(stages)[-1] if prepared.protocol.weights_per_stage else None)
    model.eval().requires_grad_(False)
    masked, controls = prepared.protocol.masked_stages(task), prepared.controls(task)
    finished = Finished(study, task, model, labels, cube, layout, masked, work.device, controls)
    for name in wanted:
        with _recorded(cube, name, labels, work.tracker):
            _analyse(prepared, name, finished, work.tracker)


@contextlib.contextmanager
def _recorded(cube: Cube, name: str, labels: Mapping[str, Any], tracker: Tracker) -> Iterator[None]:
    """Write into the cube whether an analysis is done, or why it failed; the others go on."""
    reason, state = "", 1
    try:
        with together():
            yield
    except UserError:
        raise
    except Exception as error:
        if stops_the_study(error):
            raise
        show_traceback(error, tracker)
        reason, state = reason_of(error), 2
        cube.forget(labels, analyses=[name])
    cube.write(f"runs/{name}_reason", reason, labels)
    if state == 1:
        cube.remember(labels, name, analysis=True)
    cube.write(f"runs/{name}", np.uint8(state), labels)


def _analyse(prepared: Prepared, name: str, run: Finished, tracker: Tracker) -> None:
    analysis = prepared.analyses[name]
    tracker.message(f"analysis {name}")
    declared = {v.name: v for v in analysis.variables(run.task)}
    values = analysis.compute(run)
    if not isinstance(values, Mapping):
        raise RunError(
            f"analysis {name!r} computed {'nothing' if values is None else type(values).__name__}, but must return "
            "{variable: array}; its plugin needs a repair."
        )
    if set(values) != set(declared):
        raise RunError(
            f"analysis {name!r} declared {listing(sorted(declared))} but computed {listing(map(str, values))}; its plugin needs a repair."
        )
    arrays = {}
    for variable, value in values.items():  # all of them, before the first one is written
        try:
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
            labels = run.coordinates(variable)
            shape = tuple(len(labels[dim]) for dim in declared[variable].dims)
            arrays[variable] = fitted(array, declared[variable].dtype, shape, variable)
        except DamageError:
            raise
        except (CubeError, TypeError, ValueError) as error:
            wrong = str(error) if isinstance(error, CubeError) else f"{variable} cannot be made an array ({told(error)})"
            raise RunError(f"analysis {name!r}: {wrong.rstrip('.')}; its plugin needs a repair.") from error
    for variable, array in arrays.items():
        run.cube.write(variable, array, run.labels)
