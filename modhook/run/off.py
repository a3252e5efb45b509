"""What the masked weights of a run become (`masks.off`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from modhook.cube import Cube
from modhook.errors import CubeError, MaskError, WeightsError
from modhook.masks.off import off_weights
from modhook.plugin.manager import Plugins
from modhook.plugin.offered import offered_weights
from modhook.run.build import read_weights_file
from modhook.run.layout import Prepared
from modhook.run.units import masked_of
from modhook.steps.snapshot import digest
from modhook.study import Study, off_file


def off_of(study: Study, model: nn.Module, seed: int) -> str | Mapping[str, Tensor] | None:
    """Return what `fit_masks` and `evaluate` take as `off`, with the run's seed; None: zero. Raises `WeightsError` for a file."""
    file = off_file(study, seed)
    if file is not None:
        return read_weights_file(model, file)
    return None if study.masks.off == "zero" else offered_weights(study.masks.off) or study.masks.off


def check_off(study: Study, model: nn.Module, seed: int, plugins: Plugins) -> str:
    """Return a digest of the weights that a file gives to masked parameters. Raises `WeightsError` for some that do not fit."""
    file = off_file(study, seed)
    assert file is not None
    try:
        found = off_weights(model, masked_of(study, model, plugins).parameters, off_of(study, model, seed))
    except (WeightsError, MaskError) as error:
        raise WeightsError(f"masks.off, {file}: {error}") from error
    return digest(found)


def off_key(study: Study, seed: int, layout: str) -> str:
    """Return by what a cube knows a file of `masks.off`: its name, filled with the run's seed and settings, and the network's layout."""
    file = off_file(study, seed)
    assert file is not None
    folder = study.path.parent if study.path else Path()
    return f"{file.relative_to(folder) if file.is_relative_to(folder) else file}, {layout}"


def same_off(cube: Cube, prepared: Prepared, found: Mapping[str, str]) -> None:
    """Compare the files of `masks.off` with those that a cube's finished masks were learned with.

    A file may change as long as no mask of a run that uses it is done. Raises `CubeError` for another one.
    """
    known = dict(cube.attrs.get("off", {}))
    changed = {key for key, told in found.items() if known.get(key, told) != told}
    for run in cube.runs() if changed else ():
        index = next(i for i, p in enumerate(prepared.points) if all(run[k] == v for k, v in p.labels.items()))
        key = off_key(prepared.points[index].study, run["seed"], prepared.layouts[index].name)
        stages = [s for s in prepared.stages(prepared.tasks[index]) if s != "unmasked"]
        if key in changed and any(cube.status(run, stage) == "done" for stage in stages):
            raise CubeError(
                f"{cube.path} was computed with other weights in {key.rpartition(', ')[0]!r} (masks.off) than those found there now; put "
                "the old file back, or use another --out, or --fresh to start over."
            )


def record_off(cube: Cube, found: Mapping[str, str]) -> None:
    """Record the digests of the files of `masks.off`, beside those of other runs."""
    known = dict(cube.attrs.get("off", {}))
    if any(known.get(key) != told for key, told in found.items()):
        cube.set_attrs(off={**known, **found})
