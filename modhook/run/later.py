"""`modhook analyse`: an analysis of a cube whose runs are finished, without training.

The study is rebuilt from the cube's own record, and the data must be those that it was computed from. Nothing is written before
the analysis has been computed for a first run: a mistake in its options leaves the cube as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np
import torch

from modhook.cube import Cube, Where, claim, open_cube, open_for_writing
from modhook.cube.layout import UNIT
from modhook.cube.tensors import table
from modhook.errors import CubeError, UserError, listing
from modhook.plugin.code import short
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins
from modhook.run.failure import gone_or_damaged, told_what_is_safe
from modhook.run.layout import Prepared, analysis_plan, prepare
from modhook.run.mend import check
from modhook.run.one import Run, Work, compute_run
from modhook.run.recorded import study_table
from modhook.run.setting import fingerprints, load_tasks, usable_device
from modhook.run.sources import Sources, same_sources, sources
from modhook.run.sources import recorded as recorded_code
from modhook.study import difference, resolved, restore
from modhook.study.tables import leaves
from modhook.values.text import dotted

_RTOL, _ATOL = 1e-4, 1e-6
"""How far the values of an analysis may differ when they are computed again: rounding on another machine."""


@attrs.frozen
class Analysed:
    """What a `modhook analyse` did."""

    path: Where
    groups: tuple[str, ...]
    """Groups of the cube that the analysis writes."""
    computed: int
    """Runs computed now."""
    found: int
    """Runs that had the analysis already."""
    unfinished: tuple[str, ...]
    """One line per run that is skipped: its stages are not all done."""
    failed: tuple[str, ...]
    """One line per run in which the analysis failed."""


def analyse(
    path: Where,
    name: str,
    settings: Sequence[str],
    plugins: Plugins,
    tracker: Tracker,
    device: str | None = None,
    *,
    trust: bool = False,
) -> Analysed:
    """Compute one analysis for every finished run of a cube that does not have it, or not all of its variables, yet.

    Variables that a newer version of the analysis has gained are added, and computed also for the runs that have the others,
    whose values stay as they are.

    Args:
        path: the cube.
        name: of the analysis.
        settings: its options, `key=value`; without any, those that the cube records, or the defaults.
        plugins: from `modhook.plugin.manager.plugins`.
        tracker: told about everything.
        device: instead of the study's.
        trust: whether code that the cube names, and that no installed plugin brings, may be imported and run.

    Raises:
        UserError: code to be run without `trust`, an unknown analysis or option, an analysis of another task, options other
            than those of runs that have it already, no finished run, other data, a damaged cube; nothing was written. A version of
            the analysis that computes other values than the cube has, where it has gained variables.
        StorageError: the cube's place fails midway; finished runs are safe, and the same call continues.
    """
    here = plugins.beside(Path(), "the current folder", only=None if trust else (name,))
    here.load("analyses", name)
    cube = open_for_writing(path)
    prepared, record, code = _prepare(cube, name, settings, here, trust)
    study = prepared.study
    before = torch.get_num_threads()
    torch.set_num_threads(study.run.threads or before)
    try:
        chosen = usable_device(device or study.run.device)
        with told_what_is_safe():
            return _analyse_all(Work(prepared, cube, here, tracker, chosen, retry=True), short(name), record, code)
    finally:
        tracker.close()
        torch.set_num_threads(before)


def _prepare(
    cube: Cube, name: str, settings: Sequence[str], plugins: Plugins, trust: bool
) -> tuple[Prepared, dict[str, Any], Sources]:
    """Return the study with this analysis alone, and the study's table and the digests of code as the cube is to record them."""
    recorded = study_table(cube)
    analyses = recorded.get("analyses", {})
    # Options that the cube has are the defaults of a later call; the other analyses play no part, nor do their plugins.
    wanted = {**recorded, "analyses": {name: {} if settings else analyses.get(name, {})}}
    if not trust:
        _runs_no_code(cube, recorded, plugins)
    study = restore(wanted, [f"{dotted(('analyses', name))}.{s}" for s in settings], plugins=plugins)
    if taken := [n for n in analyses if n != name and short(n) == short(name)]:
        raise UserError(f"{cube.path} has another analysis of that name, {taken[0]!r}; rename the class of {name!r}.")
    code = same_sources(cube, sources(study, plugins))
    record = {**recorded, "analyses": dict(sorted({**analyses, **resolved(study)["analyses"]}.items()))}
    if name in analyses and (changes := difference(recorded, record)) and _anywhere(cube, short(name)):
        raise CubeError(
            f"{cube.path} has the analysis {name!r} with other options: {'; '.join(changes)}; leave --set away to continue it."
        )
    tasks = load_tasks(study, plugins)
    if cube.attrs.get("data") != fingerprints(tasks):
        raise CubeError(
            f"{cube.path} was computed from other data than those found now; analyse it where its data are."
        )
    prepared = prepare(study, plugins, tasks)
    kept = short(name)  # the name that the cube has for it
    prepared = attrs.evolve(prepared, analyses={kept: prepared.analyses[kept]})  # not those of the study's controls
    if not prepared.protocol.masked_stages(tasks[0]):
        raise UserError(f"{cube.path} has no masks to analyse: its protocol {study.study.protocol!r} learns none.")
    _same_networks(cube, prepared)
    return prepared, record, code


def _runs_no_code(cube: Cube, recorded: Mapping[str, Any], plugins: Plugins) -> None:
    """Raise `UserError` if the study names code that no installed plugin brings: whoever wrote the cube chose it."""
    for what, kind, name in _named(recorded):
        if plugins.is_code(kind, name):
            where, _, attribute = name.rpartition(":")
            raise UserError(
                f"{cube.path} names the {what} {name!r}, which no installed plugin brings: to analyse it, modhook would import "
                f"{where!r} and call {attribute!r}, and that is code which whoever wrote the cube has chosen and which runs with "
                "your rights; read it first, and give --trust if you trust it."
            )


def _named(recorded: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield what a cube's study names, analyses aside, of which only the one that is asked for plays a part."""
    known = {
        "model.name": ("network", "models"),
        "task.name": ("task", "tasks"),
        "study.protocol": ("protocol", "protocols"),
        "masks.sampler": ("sampler", "samplers"),
        "masks.units": ("units", "units"),
        "run.trackers": ("tracker", "trackers"),
    }
    for keys, value in (*leaves(recorded), *((keys[1:], value) for keys, value in leaves(recorded) if keys[0] == "sweep")):
        if (found := known.get(".".join(keys))) is not None:
            yield from ((*found, name) for name in (value if isinstance(value, list) else [value]))


def _anywhere(cube: Cube, name: str) -> bool:
    """Return whether any run of the cube has the analysis."""
    if f"runs/{name}" not in cube.variables:
        return False
    with open_cube(cube.path) as tree:
        return bool((tree["runs"][name] == 1).any())


def _same_networks(cube: Cube, prepared: Prepared) -> None:
    """Check that the study's networks are still those whose weights and masks the cube holds."""
    for layout in prepared.distinct().values():
        there = {(e.name, e.shape, e.dtype, e.masked) for e in table(cube, layout.name)}
        here = {(n, shape, dtype, n in layout.masked) for n, (shape, dtype) in layout.state.items()}
        here |= {(g.name, (len(g),), UNIT, True) for g in layout.units}
        if changed := sorted({name for name, *_ in there ^ here}):
            raise CubeError(
                f"the network that {prepared.study.model.name!r} builds now is not the one in {cube.path}: it differs in "
                f"{listing(changed, 5)}; use the version that computed the cube ({cube.attrs.get('versions')})."
            )


def _analyse_all(work: Work, name: str, record: Mapping[str, Any], code: Sources) -> Analysed:
    cube, prepared = work.cube, work.prepared
    declared, labels = analysis_plan(prepared, name, prepared.analyses[name])
    missing = [(run, _missing(work, run)) for run in _runs(prepared, cube)]
    ready = [run for run, stages in missing if not stages]
    if not ready:
        run, stages = missing[0]
        raise CubeError(f"no run of {cube.path} is finished ({run.text}: {listing(stages)}); run the study first.")
    same = cube.attrs["study"] == record and code == recorded_code(cube)
    # A newer version of a plugin may declare more variables than the one that laid them out.
    own, there = [v.name for v in declared if v.group != "runs"], f"runs/{name}" in cube.variables
    gained = [v for v in own if v not in cube.variables]
    if not there and len(gained) < len(own):
        clash = next(v for v in own if v not in gained)
        raise UserError(f"{clash} is in {cube.path} already, and not of the analysis {name!r}; let it call its variable otherwise.")
    laid_out = same and not gained and f"runs/{name}_reason" in cube.variables
    done_before = [run.text for run in ready if there and int(cube.read(f"runs/{name}", run.labels)) == 1]
    wanted = [run for run in ready if run.text not in done_before or gained or not _filled(cube, own, run)]
    if there and gained and wanted:
        work.tracker.message(f"the cube gets {listing(gained)}, which the analysis {name} has now")
    work.tracker.study_started(prepared.study.study.name, len(wanted))
    failed: list[str] = []
    with claim(cube.path, [run.text for run in wanted]):
        check(cube, prepared, wanted, False, work.tracker)
        for run in wanted:
            had = run.text in done_before
            ahead = None if laid_out and not had else _Ahead(cube, name, labels)
            done = compute_run(work if ahead is None else attrs.evolve(work, cube=cast("Cube", ahead)), run)
            if done.mistake:
                raise UserError(done.mistake)
            failed += done.failed
            if ahead is None or (had and done.failed):  # what a run has already stays
                continue
            with gone_or_damaged(cube.path):
                if had:
                    ahead.keep(own, run)
                if not laid_out:
                    cube.add_variables(declared, labels)
                    cube.set_attrs(study=dict(record), **({"code": code} if code else {}))
                if had:  # pending until everything is there, so that a kill leaves no run half-filled
                    cube.forget(run.labels, analyses=[name])
                ahead.write_all()
            laid_out = True
    return Analysed(
        path=cube.path,
        groups=tuple(dict.fromkeys(v.group for v in declared if v.group != "runs")),
        computed=len(wanted) - len(failed),
        found=len(ready) - len(wanted),
        unfinished=tuple(f"{run.text}: not finished ({listing(stages)})" for run, stages in missing if stages),
        failed=tuple(failed),
    )


def _filled(cube: Cube, names: Sequence[str], run: Run) -> bool:
    """Return whether a run has a value of every variable of an analysis."""
    return all(cube.written(name, run.labels) for name in names)


def _runs(prepared: Prepared, cube: Cube) -> Iterator[Run]:
    """Yield every run of the cube, seeds outermost."""
    for seed in cube.run_dims["seed"]:
        for index, point in enumerate(prepared.points):
            yield Run(index, {"seed": seed, **point.labels})


def _missing(work: Work, run: Run) -> tuple[str, ...]:
    """Return the stages that are not done, with their state."""
    states = {s: work.cube.status(run.labels, s) for s in work.prepared.stages(work.prepared.tasks[run.index])}
    return tuple(f"{s} {state}" for s, state in states.items() if state != "done")


class _Ahead:
    """A cube as it will be once an analysis is laid out: knows its labels, and keeps what is written until then."""

    def __init__(self, cube: Cube, name: str, planned: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        self._cube, self._planned = cube, planned
        self._state = f"runs/{name}"
        self._written: dict[str, tuple[Any, Mapping[str, Any]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cube, name)

    def labels(self, name: str) -> Mapping[str, Sequence[Any]]:
        """Return the labels of a variable's own dimensions."""
        group = name.rpartition("/")[0]
        return self._planned[group] if group in self._planned else self._cube.labels(name)

    def read(self, name: str, run: Mapping[str, Any], **labels: Any) -> Any:
        """Return what was kept, or what the cube has; the analysis' state is pending until it was kept."""
        if name in self._written:
            return np.asarray(self._written[name][0])
        return np.uint8(0) if name == self._state else self._cube.read(name, run, **labels)

    def write(self, name: str, value: Any, run: Mapping[str, Any]) -> None:
        """Keep a value."""
        self._written[name] = value, run

    def remember(self, run: Mapping[str, Any], name: str, *, analysis: bool = False) -> None:
        """Nothing is written yet: `write_all` records it."""

    def forget(self, run: Mapping[str, Any], stages: Sequence[str] = (), analyses: Sequence[str] = ()) -> None:
        """Nothing is recorded yet."""

    def keep(self, names: Sequence[str], run: Run) -> None:
        """Take what the cube has of a run instead of what was computed again.

        Raises `CubeError` if the two differ: values of two versions of an analysis would stand beside each other.
        """
        for name in names:
            if name not in self._cube.variables or not self._cube.written(name, run.labels):
                continue
            old, new = self._cube.read(name, run.labels), np.asarray(self._written[name][0])
            close = old.shape == new.shape and (
                np.allclose(old, new, rtol=_RTOL, atol=_ATOL, equal_nan=True)
                if old.dtype.kind == "f"
                else np.array_equal(old.astype(object), new.astype(object))
            )
            if not close:
                raise CubeError(
                    f"the analysis {self._state.rpartition('/')[2]!r} computes another {name} of {run.text} now than {self._cube.path} "
                    "has, so its further variables cannot stand beside it; analyse it with the version, and on the device, that "
                    "computed the cube, or run the study anew with another --out."
                )
            self._written[name] = old, run.labels

    def write_all(self) -> None:
        """Write what was kept, in its order: the state comes last, and before it the record of what was written."""
        for name, (value, run) in self._written.items():
            if name == self._state and int(value) == 1:
                self._cube.remember(run, name.rpartition("/")[2], analysis=True)
            self._cube.write(name, value, run)
