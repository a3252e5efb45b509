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
    check_written,
    computing,
    create,
    exchanged,
    place_of,
    read_weights,
    same_stages,
    take_stages,
    versions_of,
)
from modhook.cube.packed import PACKED
from modhook.errors import CubeError, DamageError, StorageError, UserError, listing
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model, load_weights
from modhook.run.layout import Prepared
from modhook.run.one import PATIENCE, Run
from modhook.run.recorded import study_table
from modhook.run.weight_files import LOADED, Digests, key_of
from modhook.study import Study, difference, resolved, weights_file

NO_RECORDS = "stages cannot be taken with it"


def source_of(path: Where, study: Study, own: Where) -> Cube:
    """Return the cube that stages are to be taken from, after comparing its study with this one.

    Raises:
        UserError: it is the study's own cube. CubeError: no cube, one that cannot be read, another study, or one that lacks records,
            weights or logits.
    """
    if _real(path) == _real(own):
        raise UserError(f"--stages-from names the study's own cube {own}; the same command without it continues that.")
    try:
        source = Cube(path, read_only=True)
    except StorageError as error:
        raise CubeError(f"--stages-from: {error}") from error
    source.require_records(NO_RECORDS)
    if lost := source.attrs.get(PACKED, {}).get("without", ()):
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
    """How many runs were begun here otherwise."""

    @classmethod
    def of(
        cls, source: Cube, prepared: Prepared, plugins: Plugins, runs: Sequence[Run], cube: Cube | None, planned: Plan, files: Digests
    ) -> Taking:
        """Compare everything, and read every file that is to be taken.

        Args:
            source: from `source_of`.
            prepared, plugins: of the study.
            runs: those that are asked for.
            cube: what is there of the study already; None: nothing, or it is to be deleted.
            planned: what the study's cube would be laid out for now.
            files: digests of the files of weights that the study names.

        Raises:
            CubeError: stages computed with other data, code or weights, or laid out in another way. DamageError: a damaged file.
        """
        if cube is not None:
            cube.require_records(NO_RECORDS)
        with tempfile.TemporaryDirectory() as folder:
            mine = create(Path(folder) / "planned.zarr", planned)
            _check_stages(mine, source)
            _check_same(source, {**mine.attrs, **files})
            there = [run for run in runs if _states(source, prepared, run) == {"done"}]
            found = [run for run in there if cube is None or _free(cube, source, prepared, run)]
            _check_layouts(mine, source, prepared, found)
            for run in found:
                check_written(source, run.labels, prepared.stages(prepared.tasks[run.index]))
                _check_weights(source, prepared, plugins, run)
        begun = [] if cube is None else [run for run in runs if run not in found and _begun(cube, prepared, run)]
        return cls(source, prepared, tuple(found), len(begun))

    def note(self, cube: Cube) -> None:
        """Record the versions that computed the stages, under the writer's lock. Raises `CubeError` for a cube laid out otherwise."""
        _check_layouts(cube, self.source, self.prepared, self.runs)
        versions = versions_of((cube.attrs, self.source.attrs))
        if self.runs and cube.attrs.get("versions") != versions:
            cube.set_attrs(versions=versions)

    def take(self, cube: Cube, tracker: Tracker) -> None:
        """Write the stages into the study's cube; runs that others have begun meanwhile are left to them."""
        taken = 0
        for run in self.runs:
            with computing(cube.path, run.text, PATIENCE):
                if _free(cube, self.source, self.prepared, run):
                    take_stages(cube, self.source, run.labels, self.prepared.stages(self.prepared.tasks[run.index]))
                    taken += 1
        here = self.here + len(self.runs) - taken
        told = f"the stages of {taken} run{'' if taken == 1 else 's'} are taken from {self.source.path}" if taken else ""
        own = f"{here} run{' was' if here == 1 else 's were'} begun here, and not taken" if here else ""
        nothing = "" if taken or here else "no run that is to be computed has all its stages there"
        tracker.message("; ".join(filter(None, (told or f"nothing is taken from {self.source.path}", own or nothing))))


def _before(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's table without what no stage depends on: its name and its analyses."""
    return {**table, "study": {**table.get("study", {}), "name": ""}, "analyses": {}}


def _real(path: Where) -> Where:
    found = place_of(path).path
    return found.resolve() if isinstance(found, Path) else found


def _states(cube: Cube, prepared: Prepared, run: Run) -> set[str]:
    """Return the states of a run's stages: pending for one that a cube does not have yet, damaged where they cannot be read."""
    if any(label not in cube.run_dims.get(dim, ()) for dim, label in run.labels.items()):
        return {"pending"}
    known = cube.labels("runs/status")["stage"]  # a control's may be new
    try:
        return {cube.status(run.labels, s) if s in known else "pending" for s in prepared.stages(prepared.tasks[run.index])}
    except DamageError:
        return {"damaged"}


def _begun(cube: Cube, prepared: Prepared, run: Run) -> bool:
    return _states(cube, prepared, run) not in ({"pending"}, {"done"})


def _free(cube: Cube, source: Cube, prepared: Prepared, run: Run) -> bool:
    """Return whether a run can be taken: none of its stages is done here, or only the very ones of the source, and not all."""
    states = _states(cube, prepared, run)
    if states == {"pending"}:
        return True
    done = [s for s in prepared.stages(prepared.tasks[run.index]) if s in cube.labels("runs/status")["stage"]]
    done = [s for s in done if cube.status(run.labels, s) == "done"] if states == {"pending", "done"} else []
    return bool(done) and same_stages(cube, source, run.labels, done)


def _check_stages(cube: Cube, source: Cube) -> None:
    mine, other = ([str(s) for s in c.labels("runs/status")["stage"]] for c in (cube, source))
    if {*mine} != {*other}:
        raise CubeError(
            f"{source.path} has the stages {listing(other, 20)}, but this study with its controls has {listing(mine, 20)}; give both "
            "the same [controls], and add further ones to this study afterwards."
        )


def _check_layouts(cube: Cube, source: Cube, prepared: Prepared, runs: Sequence[Run]) -> None:
    for task in {id(prepared.tasks[run.index]): prepared.tasks[run.index] for run in runs}.values():
        labels = [run.labels for run in runs if prepared.tasks[run.index] is task]
        check_layout(cube, source, labels, prepared.stages(task))


def _check_same(source: Cube, attributes: Mapping[str, Any]) -> None:
    """Compare what the stages were computed with: data, code of one's own, files of weights."""
    if source.attrs.get("data") != attributes["data"]:
        raise CubeError(f"{source.path} was computed from other data than those found now; its stages cannot be taken.")
    after = {name for table in (attributes["study"], study_table(source)) for name in table.get("analyses", {})}
    mine = {**attributes, "code": {n: files for n, files in attributes.get("code", {}).items() if n not in after}}
    if changed := exchanged(mine, source.attrs):
        raise CubeError(f"{source.path} was computed with other {listing(changed)}; its stages cannot be taken.")


def _check_weights(source: Cube, prepared: Prepared, plugins: Plugins, run: Run) -> None:
    """Compare a file of `train.weights` with the trained weights themselves where the source, an older cube, has no digest of it."""
    study, layout, seed = prepared.points[run.index].study, prepared.layouts[run.index].name, run.labels["seed"]
    file = weights_file(study, seed)
    if file is None or key_of(LOADED, study, seed, layout) in source.attrs.get(LOADED.attribute, {}):
        return
    model = build_model(study, prepared.tasks[run.index], plugins, 0)
    load_weights(model, file)
    there = read_weights(source, layout, run.labels, "unmasked" if prepared.protocol.weights_per_stage else None)
    if any(not torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items()):
        raise CubeError(f"{source.path} was computed with other weights than those in {file}; its stages cannot be taken.")
