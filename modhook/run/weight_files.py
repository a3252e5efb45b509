"""The files of weights that a study names: that they fit, and that all runs of a cube read the same ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import frozen
from torch import Tensor, nn

from modhook.cube import WEIGHT_FILES, Cube, computing
from modhook.errors import CubeError
from modhook.plugin.manager import Plugins
from modhook.run.build import build_model, load_weights
from modhook.run.layout import Prepared
from modhook.run.off import check_off, off_of
from modhook.steps.snapshot import digest
from modhook.study import Study, file_name, off_file, weights_file

Digests = Mapping[str, Mapping[str, str]]
"""Attribute of a cube -> by what it knows a file (`key_of`) -> digest of the tensors that the file has for the network."""


@frozen
class _Kind:
    """A setting that names files of weights."""

    attribute: str
    """Of the cube: what it has of each of these files."""
    name: Callable[[Study], str | None]
    """The setting itself."""
    file: Callable[[Study, int], Path | None]
    """The file that a seed's run reads, if there is one."""
    check: Callable[[Study, nn.Module, int, Plugins], Mapping[str, Tensor]]
    """From a study, an untrained network, a seed and plugins to what the file holds; raises `WeightsError` if it does not fit."""
    trained: bool
    """Whether the network itself comes from the file, and not only what its masks are learned with."""

    @property
    def setting(self) -> str:
        return WEIGHT_FILES[self.attribute]


def _load(study: Study, model: nn.Module, seed: int, _: Plugins | None = None) -> Mapping[str, Tensor]:
    file = weights_file(study, seed)
    assert file is not None
    return load_weights(model, file)


LOADED = _Kind("loaded", lambda study: study.train.weights, weights_file, _load, True)
OFF = _Kind("off", lambda study: study.masks.off, off_file, check_off, False)
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
                known[one] = _told(kind.check(study, build_model(study, prepared.tasks[index], plugins, 0), seed, plugins))
            found.setdefault(kind.attribute, {})[key_of(kind, study, seed, layout)] = known[one]
    return found


def same_files(cube: Cube, prepared: Prepared, found: Digests) -> None:
    """Compare files of weights with those that what a cube has was computed with.

    A file of `train.weights` may change as long as no stage of a run that uses it is done; one of `masks.off`, as long as none with
    a mask is. Raises `CubeError` for another one.
    """
    there = cube.labels("runs/status")["stage"]  # a control's stages may be new
    for kind in KINDS:
        changed = _changed(cube, kind, found)
        for run in cube.runs() if changed else ():
            index = next(i for i, p in enumerate(prepared.points) if all(run[k] == v for k, v in p.labels.items()))
            study = prepared.points[index].study
            key = key_of(kind, study, run["seed"], prepared.layouts[index].name) if kind.file(study, run["seed"]) else ""
            stages = [s for s in prepared.stages(prepared.tasks[index]) if s in there and (kind.trained or s != "unmasked")]
            if key in changed and any(cube.status(run, stage) == "done" for stage in stages):
                raise _another(cube, kind, key)


def record_files(cube: Cube, prepared: Prepared, found: Digests) -> None:
    """Record the digests of files of weights, beside those of other runs; under the writer's lock.

    Raises `CubeError` where another process computes with, or has computed with, another file of the same name.
    """
    same_files(cube, prepared, found)
    for kind in KINDS:
        known = dict(cube.attrs.get(kind.attribute, {}))
        # Nothing is done with what is to be replaced, but another process may be at it.
        with computing(cube.path, None) if _changed(cube, kind, found) else contextlib.nullcontext():
            now = found.get(kind.attribute, {})
            if any(known.get(key) != told for key, told in now.items()):
                cube.set_attrs(**{kind.attribute: {**known, **now}})


def load_trained(cube: Cube, study: Study, model: nn.Module, seed: int, layout: str) -> None:
    """Put the weights of the study's own file into the network. Raises `CubeError` where they changed since the cube knows the file."""
    _unchanged(cube, LOADED, study, seed, layout, _load(study, model, seed))


def read_off(cube: Cube, study: Study, model: nn.Module, seed: int, layout: str) -> str | Mapping[str, Tensor] | None:
    """Return what `off_of` does. Raises `CubeError` where a file changed since the cube knows it."""
    off = off_of(study, model, seed)
    if off_file(study, seed) is not None:
        assert isinstance(off, Mapping)
        _unchanged(cube, OFF, study, seed, layout, off)
    return off


def key_of(kind: _Kind, study: Study, seed: int, layout: str) -> str:
    """Return by what a cube knows a file: its name as the study gives it, filled with the run's seed and settings, and the layout."""
    name = kind.name(study)
    assert name is not None
    return f"{file_name(study, name, seed)}, {layout}"


def _changed(cube: Cube, kind: _Kind, found: Digests) -> set[str]:
    known = cube.attrs.get(kind.attribute, {})
    return {key for key, told in found.get(kind.attribute, {}).items() if known.get(key, told) != told}


def _unchanged(cube: Cube, kind: _Kind, study: Study, seed: int, layout: str, tensors: Mapping[str, Tensor]) -> None:
    key, told = key_of(kind, study, seed, layout), _told(tensors)
    if cube.attrs.get(kind.attribute, {}).get(key, told) != told:
        raise _another(cube, kind, key)


def _told(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of names and values, however the tensors lie in memory."""
    return digest({name: tensors[name].detach().cpu().clone() for name in sorted(tensors)})


def _another(cube: Cube, kind: _Kind, key: str) -> CubeError:
    return CubeError(
        f"{cube.path} was computed with other weights in {key.rpartition(', ')[0]!r} ({kind.setting}) than those found there now; put "
        "the old file back, or compute anew with another --out or with --fresh."
    )
