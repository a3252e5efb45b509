"""The files of weights that a study names: that they fit, and that all runs of a cube read the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import frozen
from torch import Tensor, nn

from modhook.cube import Cube
from modhook.errors import CubeError
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model, load_weights
from modhook.run.layout import Prepared
from modhook.run.off import check_off, off_of
from modhook.steps.snapshot import digest
from modhook.study import Study, file_name, off_file, weights_file

Digests = Mapping[str, Mapping[str, str]]
"""Attribute of a cube -> by what it knows a file (`_key`) -> digest of the tensors that the file has for the network."""


@frozen
class _Kind:
    """A setting that names files of weights."""

    attribute: str
    """Of the cube: what it has of each of these files."""
    setting: str
    name: Callable[[Study], str | None]
    """The setting itself."""
    file: Callable[[Study, int], Path | None]
    """The file that a seed's run reads, if there is one."""
    check: Callable[[Study, nn.Module, int, Plugins], str]
    """From a study, an untrained network, a seed and plugins to the digest; raises `WeightsError`."""
    trained: bool
    """Whether the network itself comes from the file, and not only what its masks are learned with."""


def _check_trained(study: Study, model: nn.Module, seed: int, plugins: Plugins) -> str:
    file = weights_file(study, seed)
    assert file is not None
    load_weights(model, file)
    return digest(model.state_dict())


LOADED = _Kind("loaded", "train.weights", lambda study: study.train.weights, weights_file, _check_trained, True)
OFF = _Kind("off", "masks.off", lambda study: study.masks.off, off_file, check_off, False)
KINDS = (LOADED, OFF)


def check_files(prepared: Prepared, plugins: Plugins, runs: Iterable[tuple[int, int]]) -> Digests:
    """Return the digests of the files that runs read, each given as (number of the sweep point, seed).

    Every file of a network is read once. Raises `WeightsError` for weights that do not fit, before anything is computed.
    """
    known: dict[tuple[str, str, Path], str] = {}
    found: dict[str, dict[str, str]] = {}
    for index, seed in runs:
        study, layout = prepared.points[index].study, prepared.layouts[index].name
        for kind in KINDS:
            file = kind.file(study, seed)
            if file is None:
                continue
            one = (kind.attribute, layout, file)
            if one not in known:
                known[one] = kind.check(study, build_model(study, prepared.tasks[index], plugins, 0), seed, plugins)
            found.setdefault(kind.attribute, {})[_key(kind, study, seed, layout)] = known[one]
    return found


def same_files(cube: Cube, prepared: Prepared, found: Digests) -> None:
    """Compare files of weights with those that what a cube has was computed with.

    A file of `train.weights` may change as long as no run has read it; one of `masks.off`, as long as no mask of a run that uses it
    is done. Raises `CubeError` for another one.
    """
    for kind in KINDS:
        known, now = cube.attrs.get(kind.attribute, {}), found.get(kind.attribute, {})
        changed = {key for key, told in now.items() if known.get(key, told) != told}
        for run in cube.runs() if changed else ():
            index = next(i for i, p in enumerate(prepared.points) if all(run[k] == v for k, v in p.labels.items()))
            study = prepared.points[index].study
            key = _key(kind, study, run["seed"], prepared.layouts[index].name) if kind.file(study, run["seed"]) else ""
            stages = [s for s in prepared.stages(prepared.tasks[index]) if kind.trained or s != "unmasked"]
            if key in changed and any(cube.status(run, stage) == "done" for stage in stages):
                raise _another(cube, kind, key)


def record_files(cube: Cube, found: Digests) -> None:
    """Record the digests of files of weights, beside those of other runs."""
    for attribute, digests in found.items():
        known = dict(cube.attrs.get(attribute, {}))
        if any(known.get(key) != told for key, told in digests.items()):
            cube.set_attrs(**{attribute: {**known, **digests}})


def load_trained(cube: Cube, study: Study, model: nn.Module, seed: int, layout: str, plugins: Plugins) -> None:
    """Put the weights of the study's own file into the network. Raises `CubeError` where they changed since the cube knows the file."""
    _unchanged(cube, LOADED, study, seed, layout, _check_trained(study, model, seed, plugins))


def read_off(cube: Cube, study: Study, model: nn.Module, seed: int, layout: str, plugins: Plugins) -> str | Mapping[str, Tensor] | None:
    """Return what `off_of` does. Raises `CubeError` where a file changed since the cube knows it."""
    if off_file(study, seed) is not None:
        _unchanged(cube, OFF, study, seed, layout, check_off(study, model, seed, plugins))
    return off_of(study, model, seed)


def _unchanged(cube: Cube, kind: _Kind, study: Study, seed: int, layout: str, told: str) -> None:
    key = _key(kind, study, seed, layout)
    if cube.attrs.get(kind.attribute, {}).get(key, told) != told:
        raise _another(cube, kind, key)


def _another(cube: Cube, kind: _Kind, key: str) -> CubeError:
    return CubeError(
        f"{cube.path} was computed with other weights in {key.rpartition(', ')[0]!r} ({kind.setting}) than those found there now; put "
        "the old file back, or use another --out, or --fresh to start over."
    )


def _key(kind: _Kind, study: Study, seed: int, layout: str) -> str:
    """Return by what a cube knows a file: its name as the study gives it, filled with the run's seed and settings, and the layout."""
    name = kind.name(study)
    assert name is not None
    return f"{file_name(study, name, seed)}, {layout}"
