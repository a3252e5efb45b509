"""Finished runs of another cube, whose stages are taken instead of computed: its study differs in what comes after them alone.

Everything that speaks against it is said before anything is written or deleted (`Taking.of`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from modhook.cube import (
    Cube,
    Plan,
    Where,
    check_layout,
    check_stage_names,
    check_written,
    create,
    place_of,
    read_weights,
    same_stages,
    take_stages,
    versions_of,
)
from modhook.errors import CubeError, UserError, listing
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model, load_weights
from modhook.run.layout import Prepared
from modhook.run.one import Run
from modhook.run.recorded import study_table
from modhook.run.sources import recorded
from modhook.run.weight_files import Digests
from modhook.study import Study, difference, resolved, weights_file

_AFTER = ("analyses", "controls")
"""Sections of a study that no stage depends on."""


def source_of(path: Where, study: Study, own: Where) -> Cube:
    """Return the cube that stages are to be taken from, after comparing its study with this one.

    Raises:
        UserError: it is the study's own cube. CubeError: no cube, another study, or one that lacks records, weights or logits.
        StorageError: it cannot be read.
    """
    if _real(path) == _real(own):
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
            "in its name and analyses alone."
        )
    return source


@frozen
class Taking:
    """What is to be taken from another cube, checked."""

    source: Cube
    prepared: Prepared
    runs: tuple[Run, ...]
    """Those that have all their stages there, and none here but these very ones."""
    here: int
    """How many runs were begun here otherwise: they are computed on."""

    @classmethod
    def of(
        cls,
        source: Cube,
        prepared: Prepared,
        plugins: Plugins,
        runs: Sequence[Run],
        cube: Cube | None,
        planned: Plan,
        files: Digests,
    ) -> Taking:
        """Compare everything, and read every file that is to be taken.

        Args:
            source: from `source_of`.
            prepared, plugins: of the study.
            runs: those that are asked for.
            cube: what is there of the study already; None: nothing, or it is to be deleted.
            planned: what the study's cube would be laid out for.
            files: digests of the files of weights that the study names.

        Raises:
            CubeError: stages computed with other data, code or weights, or laid out in another way. DamageError: a damaged file.
        """
        stages = {run.text: prepared.stages(prepared.tasks[run.index]) for run in runs}
        with tempfile.TemporaryDirectory() as folder:
            mine = create(Path(folder) / "planned.zarr", planned)
            here = mine if cube is None else cube
            check_stage_names(mine, source)
            done = [r for r in runs if _states(here, r, stages[r.text]) == {"done"}]
            begun = [r for r in runs if r not in done and _states(here, r, stages[r.text]) != {"pending"}]
            there = [r for r in runs if r not in done and _states(source, r, stages[r.text]) == {"done"}]
            found = [r for r in there if r not in begun or _same(here, source, r, stages[r.text])]
            if found:
                _check(source, {**here.attrs, **files, "data": mine.attrs["data"]}, {*study_table(mine).get("analyses", {})})
            for run in found:
                check_layout(here, source, run.labels, stages[run.text])
                check_written(source, run.labels, stages[run.text])
                _same_weights(source, prepared, plugins, run)
        return cls(source, prepared, tuple(found), sum(r not in found for r in begun))

    def take(self, cube: Cube, tracker: Tracker) -> None:
        """Write the stages into the study's cube. Raises `CubeError` where it was laid out otherwise meanwhile."""
        stages = {run.text: self.prepared.stages(self.prepared.tasks[run.index]) for run in self.runs}
        for run in self.runs:
            check_layout(cube, self.source, run.labels, stages[run.text])
        versions = versions_of((cube.attrs, self.source.attrs))
        if self.runs and cube.attrs.get("versions") != versions:
            cube.set_attrs(versions=versions)
        for run in self.runs:
            take_stages(cube, self.source, run.labels, stages[run.text])
        tracker.message(self._said())

    def _said(self) -> str:
        count = len(self.runs)
        told = f"the stages of {count} run{'' if count == 1 else 's'} are taken from {self.source.path}" if count else ""
        if self.here:
            own = f"{self.here} run{' was' if self.here == 1 else 's were'} begun here, and {'is' if self.here == 1 else 'are'} computed on"
            return f"{told}; {own}" if told else f"nothing is taken from {self.source.path}: {own}"
        return told or f"nothing is taken from {self.source.path}: no run that is to be computed has all its stages there"


def _before(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's table without what no stage depends on."""
    return {k: v for k, v in table.items() if k not in _AFTER} | {"study": {**table.get("study", {}), "name": ""}}


def _real(path: Where) -> Where:
    found = place_of(path).path
    return found.resolve() if isinstance(found, Path) else found


def _states(cube: Cube, run: Run, stages: Sequence[str]) -> set[str]:
    if any(label not in cube.run_dims.get(dim, ()) for dim, label in run.labels.items()):
        return {"pending"}
    known = cube.labels("runs/status")["stage"]  # a control's may be new
    return {str(cube.status(run.labels, stage)) if stage in known else "pending" for stage in stages}


def _same(cube: Cube, source: Cube, run: Run, stages: Sequence[str]) -> bool:
    states = {stage: cube.status(run.labels, stage) for stage in stages if stage in cube.labels("runs/status")["stage"]}
    return "failed" not in states.values() and same_stages(cube, source, run.labels, [s for s, state in states.items() if state == "done"])


def _check(source: Cube, attributes: Mapping[str, Any], analyses: set[str]) -> None:
    """Compare what the stages were computed with: data, code of one's own, files of weights."""
    if source.attrs.get("data") != attributes.get("data"):
        raise CubeError(f"{source.path} was computed from other data than those found now; its stages cannot be taken.")
    mine, other = attributes.get("code", {}), recorded(source)
    analyses = analyses | {*study_table(source).get("analyses", {})}
    changed = [f"code of {n!r}" for n in mine.keys() & other.keys() - analyses if dict(mine[n]) != other[n]]
    for name in ("loaded", "off"):
        mine, other = attributes.get(name, {}), source.attrs.get(name, {})
        changed += [f"weights in {k.rpartition(', ')[0]!r}" for k in mine.keys() & other.keys() if mine[k] != other[k]]
    if changed:
        raise CubeError(f"{source.path} was computed with other {listing(sorted(changed))}; its stages cannot be taken.")


def _same_weights(source: Cube, prepared: Prepared, plugins: Plugins, run: Run) -> None:
    """Compare a file of `train.weights` with the trained weights themselves: older cubes say nothing of the file."""
    study, layout = prepared.points[run.index].study, prepared.layouts[run.index].name
    file = weights_file(study, run.labels["seed"])
    if file is None:
        return
    model = build_model(study, prepared.tasks[run.index], plugins, 0)
    load_weights(model, file)
    there = read_weights(source, layout, run.labels, "unmasked" if prepared.protocol.weights_per_stage else None)
    if any(not torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items()):
        raise CubeError(f"{source.path} was computed with other weights than those in {file}; its stages cannot be taken.")
