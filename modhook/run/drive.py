"""The whole of `modhook run`: check, lay out or continue the cube, compute every run that is missing, report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from modhook.cube import (
    Cube,
    Plan,
    Where,
    claim,
    computing,
    create,
    is_url,
    open_for_writing,
    place_of,
    removable,
    remove_leftovers,
    writer_lock,
)
from modhook.errors import CubeError, UserError, listing, near_miss
from modhook.plugin.code import short
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins
from modhook.run.checkpoints import Checkpoints
from modhook.run.control import try_controls
from modhook.run.failure import gone_or_damaged, told_what_is_safe
from modhook.run.further import add_controls, continued
from modhook.run.layout import Prepared, analysis_plan, plan, prepare
from modhook.run.live import Live, clear
from modhook.run.making import making
from modhook.run.mend import check
from modhook.run.one import PATIENCE, Run, Spread, Work, after_control
from modhook.run.ranked import RankedCube
from modhook.run.setting import check_threads, fingerprints, load_tasks, usable_device
from modhook.run.sources import recorded, same_sources, sources
from modhook.run.taken import Taking, source_of
from modhook.run.together import in_turn
from modhook.run.trackers import Trackers
from modhook.run.trial import try_tasks
from modhook.run.weight_files import Digests, check_files, record_files, same_files
from modhook.steps.ranks import rank, together
from modhook.steps.ranks import spread as ranks_share
from modhook.study import Study, difference, resolved

LAYOUT_PATIENCE = 600.0
"""Seconds that a run with --only waits while others lay out or grow the cube."""


@attrs.frozen
class Outcome:
    """What a `modhook run` did."""

    path: Where
    """The cube: a path, or a URL."""
    computed: int
    """Stages computed now."""
    found: int
    """Stages that were in the cube already."""
    failed: tuple[str, ...]
    """One line per failed stage: run, stage and reason."""


def cube_path(study: Study, out: Where) -> Where:
    """Return where the study's cube is: `OUT/NAME.zarr`, or `OUT/NAME-VARIANT.zarr`; a URL if `out` is one."""
    name = f"{study.cube_name}.zarr"
    return (place_of(out) / name).path if is_url(out) else Path(out) / name


def run_study(
    study: Study,
    out: Where,
    plugins: Plugins,
    tracker: Tracker,
    *,
    only: Mapping[str, str] | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    only_control: bool = False,
    repair: bool = False,
    renew: bool = False,
    stages_from: Where | None = None,
    spread: Spread = in_turn,
) -> Outcome:
    """Compute everything of a study that its cube does not hold yet.

    Args:
        study: from `modhook.study.load`.
        out: folder for the cube, a local path or a URL that fsspec understands.
        plugins: from `modhook.plugin.manager.plugins`.
        tracker: told about everything.
        only: coordinates that a run must have to be computed now, `{"seed": "3"}`.
        fresh: delete an existing cube of this study, and its checkpoints, first.
        retry_failed: compute failed stages and analyses again.
        only_control: compute no stage after the control of each run, and no analysis; a later call computes the rest.
        repair: compute again what is lost or exchanged in the cube, instead of refusing to continue it.
        stages_from: another study's cube with the same stages; runs without other ones are given those of its finished runs.
        renew: compute an analysis again where its version has more variables now than the cube, instead of naming the command for it.
        spread: computes the runs: one after the other here, or on workers (`modhook.launch`).

    Raises:
        UserError: a mistake in the study, another study in the way, data or weights missing; nothing was written.
        StorageError: the cube's place fails midway; finished stages are safe, and the same call continues.
    """
    plugins = plugins if study.path is None else plugins.beside(study.path.parent)
    threads = study.run.threads
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with told_what_is_safe(), making(cube_path(study, out)):
            wanted = dict(only or {})
            return _run(
                study, out, plugins, tracker, wanted, fresh, retry_failed, only_control, repair, renew, stages_from, spread
            )
    finally:
        tracker.close()
        torch.set_num_threads(before)


def _run(
    study: Study,
    out: Where,
    plugins: Plugins,
    tracker: Tracker,
    only: dict[str, str],
    fresh: bool,
    retry: bool,
    only_control: bool,
    repair: bool,
    renew: bool,
    stages_from: Where | None,
    spread: Spread,
) -> Outcome:
    path, taking = cube_path(study, out), None
    with together():
        source = source_of(stages_from, study, path) if stages_from is not None and rank() == 0 else None
        device, code = usable_device(study.run.device), sources(study, plugins)
        if place_of(path).exists() and not fresh:
            found = open_for_writing(path)
            _same_study(path, found, study)  # before any data are read
            same_sources(found, code)
        prepared = prepare(study, plugins, load_tasks(study, plugins))
        for task in prepared.tasks if only_control else ():
            after_control(prepared, task)
        try_tasks(prepared, plugins, device)
        try_controls(prepared, plugins)
        runs = list(_runs(prepared, only))
        files = check_files(prepared, plugins, [(run.index, run.labels["seed"]) for run in runs])
        there = open_for_writing(path) if place_of(path).exists() and not fresh else None
        if there is not None:
            same_files(there, prepared, files)
        planned = plan(prepared, range(1, study.study.seeds + 1), fingerprints(prepared.tasks), code)
        if source is not None:
            taking = Taking.of(source, prepared, plugins, runs, there, planned, files)
    # Array jobs start together: each waits for the others to lay out the cube, and is refused only the runs they have.
    patience = LAYOUT_PATIENCE if only else 0.0
    with _laid_out(out, path, prepared, planned, runs, files, taking, fresh, renew, patience, tracker) as cube:
        with together():
            if rank() == 0:
                check(cube, prepared, runs, repair, tracker)
                if taking is not None:
                    taking.take(open_for_writing(path), tracker)
        tracker.study_started(study.study.name, len(runs))
        if said := check_threads(study.run.threads):
            tracker.message(said)
        with gone_or_damaged(cube.path), contextlib.closing(Live(cube.path)) as live:
            told = Trackers({"tracker": tracker, "live": live}) if rank() == 0 else tracker
            finished = list(spread(Work(prepared, cube, plugins, told, device, retry, only_control, tracker), runs))
    computed, mistakes = sum(one.computed for one in finished), [one.mistake for one in finished if one.mistake]
    if mistakes and not computed:
        raise UserError(mistakes[0])
    failed = tuple(line for one in finished for line in one.failed)
    return Outcome(path, computed, sum(one.found for one in finished), (*failed, *mistakes))


@contextlib.contextmanager
def _laid_out(
    out: Where,
    path: Where,
    prepared: Prepared,
    planned: Plan,
    runs: Sequence[Run],
    files: Digests,
    taking: Taking | None,
    fresh: bool,
    renew: bool,
    patience: float,
    tracker: Tracker,
) -> Iterator[Cube]:
    """Lay out, grow or delete and open the cube, and hold the claim on runs. Under torchrun the first rank does it for all."""
    with contextlib.ExitStack() as held:
        with together():
            if rank() == 0:
                place_of(out).check_writable()
                with writer_lock(path, patience):
                    held.enter_context(claim(path, None if fresh else [run.text for run in runs]))
                    if fresh:
                        with computing(path, None, PATIENCE):
                            pass
                    cube = _open(path, prepared, planned, fresh, renew, tracker)
                    record_files(cube, prepared, files)
                    if taking is not None:
                        taking.note(cube)
        yield RankedCube(path) if ranks_share() else cube
        if rank() == 0:
            _tidy(path)


def _open(path: Where, prepared: Prepared, planned: Plan, fresh: bool, renew: bool, tracker: Tracker) -> Cube:
    study = prepared.study
    place = place_of(path)
    if fresh:
        old = removable(path) if place.exists() else None
        Checkpoints.of(path).clear()  # before the cube: without it they would continue another one
        clear(path)
        if old is not None:
            old.remove()
    if not place.exists():
        return create(path, planned)
    cube = open_for_writing(path)
    _same_study(path, cube, study)
    known_code, code = recorded(cube), same_sources(cube, planned.attrs.get("code", {}))
    _tidy(path)
    if cube.attrs.get("data") != planned.attrs["data"]:
        raise CubeError(
            f"{path} was computed from other data than those found now; use another --out, or --fresh to start over."
        )
    if study.study.seeds > len(cube.run_dims["seed"]):
        cube.grow_seeds(study.study.seeds)
        tracker.message(f"the cube grows to {study.study.seeds} seeds")
    for name, analysis in prepared.analyses.items():
        declared, labels = analysis_plan(prepared, name, analysis)
        there = f"runs/{name}_reason" in cube.variables
        gained = [v.name for v in declared if v.name not in cube.variables]  # by a newer version of its plugin
        for run in cube.runs() if gained and there and renew else ():  # first: a kill leaves no run without them that is done
            if int(cube.read(f"runs/{name}", run)) == 1:
                cube.reset(run, (), [name])
        if gained or any(short(n) == name and known_code.get(n) != files for n, files in code.items()):
            cube.add_variables(declared, labels)
        if not there:
            tracker.message(f"the cube gets the analysis {name}")
        elif gained:
            then = "it is computed again" if renew else f"runs that have it already get them by `modhook analyse {path} {name}`"
            tracker.message(f"the cube gets {listing(gained)}, which the analysis {name} has now; {then}")
    add_controls(cube, prepared, tracker)
    record = continued(cube.attrs["study"], resolved(study))
    if cube.attrs["study"] != record:
        cube.set_attrs(study=record)
    if known_code != code:
        cube.set_attrs(code=code)
    return cube


def _tidy(path: Where) -> None:
    """Remove what killed processes left half-written; not while others compute, whose files look the same."""
    with contextlib.suppress(CubeError), computing(path, None):
        remove_leftovers(path)
        Checkpoints.of(path).tidy()


def _same_study(path: Where, cube: Cube, study: Study) -> None:
    if changes := difference(cube.attrs["study"], resolved(study)):
        raise CubeError(
            f"{path} holds another study: {'; '.join(changes)}; give the study another name, use another --out, or --fresh to start over."
        )


def _runs(prepared: Prepared, only: dict[str, str]) -> Iterator[Run]:
    """Yield every run that is asked for, seeds outermost."""
    keys, seeds = ["seed", *prepared.study.sweep], prepared.study.study.seeds
    if unknown := [k for k in only if k not in keys]:
        near = near_miss(unknown[0], keys)
        raise UserError(f"--only {unknown[0]}=...{near} is no dimension of this study; it has: {listing(keys)}.")
    chosen = False
    for seed in range(1, seeds + 1):
        for index, point in enumerate(prepared.points):
            labels = {"seed": seed, **point.labels}
            if all(_is(labels[k], v) for k, v in only.items()):
                chosen = True
                yield Run(index, labels)
    if chosen:
        return
    asked = " ".join(f"{k}={v}" for k, v in only.items())
    if "seed" in only and not any(_is(seed, only["seed"]) for seed in range(1, seeds + 1)):
        more = (
            f"; --set study.seeds={int(only['seed'])} adds more"
            if only["seed"].isdecimal() and seeds < int(only["seed"])
            else ""
        )
        raise UserError(f"--only {asked} matches no run: the seeds of this study are 1 to {seeds}{more}.")
    values = {k: list(dict.fromkeys(p.labels[k] for p in prepared.points)) for k in prepared.study.sweep}
    near = "".join(
        near_miss(v, map(str, values[k])) for k, v in only.items() if k in values and v not in map(str, values[k])
    )
    has = "; ".join(f"{k}: {listing(map(str, v))}" for k, v in values.items())
    raise UserError(f"--only {asked} matches no run{near}; there are {f'seed: 1 to {seeds}; {has}'.rstrip('; ')}.")


def _is(label: Any, text: str) -> bool:
    """Return whether a label is what a user wrote: `3e-5` is the label 3e-05."""
    if str(label) == text or isinstance(label, str):
        return str(label) == text
    try:
        return float(text) == float(label)
    except ValueError:
        return False
