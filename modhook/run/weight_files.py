"""The files of weights that a study names: that they fit, and that a cube is continued only with the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from modhook.cube import Cube
from modhook.errors import CubeError
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model, load_weights
from modhook.run.layout import Prepared
from modhook.run.off import check_off
from modhook.run.one import Run
from modhook.steps.snapshot import digest
from modhook.study import Study, off_file, weights_file

Digests = Mapping[str, Mapping[str, str]]
"""Attribute of a cube -> by what it knows a file (`_key`) -> digest of the tensors that the file has for the network."""


@frozen
class _Kind:
    """A setting that names files of weights."""

    attribute: str
    """Of the cube: what it has of each of these files."""
    setting: str
    file: Callable[[Study, int], Path | None]
    check: Callable[[Study, Prepared, int, int, Plugins], str]
    """From a study, what is prepared, the number of the sweep point and a seed to the digest; raises `WeightsError`."""
    trained: bool
    """Whether the network itself comes from the file, and not only what its masks are learned with."""


def _check_trained(study: Study, prepared: Prepared, index: int, seed: int, plugins: Plugins) -> str:
    file = weights_file(study, seed)
    assert file is not None
    model = build_model(study, prepared.tasks[index], plugins, 0)
    load_weights(model, file)
    return digest(model.state_dict())


def _check_off(study: Study, prepared: Prepared, index: int, seed: int, plugins: Plugins) -> str:
    return check_off(study, build_model(study, prepared.tasks[index], plugins, 0), seed, plugins)


_KINDS = (
    _Kind("loaded", "train.weights", weights_file, _check_trained, True),
    _Kind("off", "masks.off", off_file, _check_off, False),
)


def check_files(prepared: Prepared, plugins: Plugins, runs: Sequence[Run]) -> Digests:
    """Return the digests of the files that runs read. Every file of a network is read once.

    Raises `WeightsError` for weights that do not fit, before anything is computed.
    """
    known: dict[tuple[str, str, Path], str] = {}
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        study, layout, seed = prepared.points[run.index].study, prepared.layouts[run.index].name, run.labels["seed"]
        for kind in _KINDS:
            file = kind.file(study, seed)
            if file is None:
                continue
            one = (kind.attribute, layout, file)
            if one not in known:
                known[one] = kind.check(study, prepared, run.index, seed, plugins)
            found.setdefault(kind.attribute, {})[_key(study, file, layout)] = known[one]
    return found


def same_files(cube: Cube, prepared: Prepared, found: Digests) -> None:
    """Compare files of weights with those that what a cube has was computed with.

    A file of `train.weights` may change as long as no run has read it; one of `masks.off`, as long as no mask of a run that uses it
    is done. Raises `CubeError` for another one.
    """
    for kind in _KINDS:
        known, now = cube.attrs.get(kind.attribute, {}), found.get(kind.attribute, {})
        changed = {key for key, told in now.items() if known.get(key, told) != told}
        for run in cube.runs() if changed else ():
            index = next(i for i, p in enumerate(prepared.points) if all(run[k] == v for k, v in p.labels.items()))
            study = prepared.points[index].study
            file = kind.file(study, run["seed"])
            key = "" if file is None else _key(study, file, prepared.layouts[index].name)
            stages = [s for s in prepared.stages(prepared.tasks[index]) if kind.trained or s != "unmasked"]
            if key in changed and any(cube.status(run, stage) == "done" for stage in stages):
                raise CubeError(
                    f"{cube.path} was computed with other weights in {key.rpartition(', ')[0]!r} ({kind.setting}) than those found there "
                    "now; put the old file back, or use another --out, or --fresh to start over."
                )


def record_files(cube: Cube, found: Digests) -> None:
    """Record the digests of files of weights, beside those of other runs."""
    for attribute, digests in found.items():
        known = dict(cube.attrs.get(attribute, {}))
        if any(known.get(key) != told for key, told in digests.items()):
            cube.set_attrs(**{attribute: {**known, **digests}})


def _key(study: Study, file: Path, layout: str) -> str:
    """Return by what a cube knows a file: its name, filled with the run's seed and settings, and the network's layout."""
    folder = study.path.parent if study.path else Path()
    return f"{file.relative_to(folder) if file.is_relative_to(folder) else file}, {layout}"
