"""What the masked weights of a run become (`masks.off`)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from modhook.errors import MaskError, WeightsError
from modhook.masks.off import off_weights
from modhook.plugin.manager import Plugins
from modhook.plugin.offered import offered_weights
from modhook.run.build import read_weights_file
from modhook.run.units import masked_of
from modhook.study import Study, off_file


def off_of(study: Study, model: nn.Module, seed: int) -> str | Mapping[str, Tensor] | None:
    """Return what `fit_masks` and `evaluate` take as `off`, with the run's seed; None: zero. Raises `WeightsError` for a file."""
    file = off_file(study, seed)
    if file is not None:
        return read_weights_file(model, file)
    return None if study.masks.off == "zero" else offered_weights(study.masks.off) or study.masks.off


def check_off(study: Study, model: nn.Module, seed: int, plugins: Plugins) -> Mapping[str, Tensor]:
    """Return the tensors of a file that gives weights to masked parameters. Raises `WeightsError` for some that do not fit."""
    file = off_file(study, seed)
    assert file is not None
    given = read_weights_file(model, file)
    try:
        off_weights(model, masked_of(study, model, plugins).parameters, given)
    except (WeightsError, MaskError) as error:
        raise WeightsError(f"masks.off, {file}: {error}") from error
    return given
