"""Finished runs of another cube, whose stages are taken instead of computed: its study differs in what comes after them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modhook.cube import Cube, Where, place_of, take_stages, versions_of
from modhook.errors import CubeError, UserError, listing
from modhook.plugin.interfaces import Tracker
from modhook.run.layout import Prepared
from modhook.run.one import Run
from modhook.run.recorded import study_table
from modhook.run.sources import recorded
from modhook.study import Study, difference, resolved

_AFTER = ("analyses", "controls")
"""Sections of a study that no stage depends on."""


def source_of(path: Where, study: Study, own: Where) -> Cube:
    """Return the cube that stages are to be taken from, after comparing its study with this one.

    Raises:
        UserError: it is the study's own cube. CubeError: no cube, another study, or one that lacks records, weights or logits.
    """
    if place_of(path).path == place_of(own).path:
        raise UserError(f"--stages-from names the study's own cube {own}; the same command without it continues that.")
    source = Cube(path, read_only=True)
    if not source.recorded:
        raise CubeError(f"{source.path} was written by an older version, which kept no record of its runs; no stages can be taken from it.")
    if lost := source.attrs.get("modhook_packed", {}).get("without", ()):
        what = " and ".join(lost)
        raise CubeError(f"{source.path} was packed without {what}, which analyses need; give the cube that it was packed from.")
    if changes := difference(_before(study_table(source)), _before(resolved(study))):
        raise CubeError(
            f"{source.path} holds other stages than this study: {'; '.join(changes)}; --stages-from takes them from a study that differs "
            "in its name, its analyses and controls alone."
        )
    return source


def take_runs(cube: Cube, source: Cube, prepared: Prepared, runs: Sequence[Run], tracker: Tracker) -> None:
    """Take all stages of runs that have none here and all of them in `source`; the others are left to be computed.

    Raises `CubeError` where the stages were computed with other data, code or weights, or are laid out in another way.
    """
    found = [run for run in runs if _all(source, prepared, run, "done") and _all(cube, prepared, run, "pending")]
    if not found:
        begun = [run for run in runs if not _all(cube, prepared, run, "pending")]
        if len(begun) < len(runs):
            tracker.message(f"no run that is to be computed has all its stages in {source.path}: nothing is taken from it")
        return
    _check(cube, source)
    for run in found:
        take_stages(cube, source, run.labels, prepared.stages(prepared.tasks[run.index]))
    versions = versions_of((cube.attrs, source.attrs))
    if cube.attrs.get("versions") != versions:
        cube.set_attrs(versions=versions)
    tracker.message(f"the stages of {len(found)} run{'s' if len(found) > 1 else ''} are taken from {source.path}")


def _before(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's table without what no stage depends on."""
    return {k: v for k, v in table.items() if k not in _AFTER} | {"study": {**table.get("study", {}), "name": ""}}


def _all(cube: Cube, prepared: Prepared, run: Run, state: str) -> bool:
    if any(label not in cube.run_dims.get(dim, ()) for dim, label in run.labels.items()):
        return False
    return all(cube.status(run.labels, stage) == state for stage in prepared.stages(prepared.tasks[run.index]))


def _check(cube: Cube, source: Cube) -> None:
    """Compare what the stages of both were computed with."""
    if source.attrs.get("data") != cube.attrs.get("data"):
        raise CubeError(f"{source.path} was computed from other data than those found now; its stages cannot be taken.")
    mine, other = recorded(cube), recorded(source)
    analyses = {n for c in (cube, source) for n in study_table(c).get("analyses", {})}
    changed = [f"code of {n!r}" for n in mine.keys() & other.keys() - analyses if mine[n] != other[n]]
    for name in ("loaded", "off"):
        mine, other = cube.attrs.get(name, {}), source.attrs.get(name, {})
        changed += [f"weights in {k.rpartition(', ')[0]!r}" for k in mine.keys() & other.keys() if mine[k] != other[k]]
    if changed:
        raise CubeError(f"{source.path} was computed with other {listing(sorted(changed))}; its stages cannot be taken.")
