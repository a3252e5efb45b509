"""What the masks of a study are over (`masks.units`), on its network."""

from __future__ import annotations

from typing import Any

from torch import nn

from modhook.errors import ModhookError, PluginError
from modhook.masks.granular import Masked, masked_by
from modhook.plugin.culprit import told
from modhook.plugin.manager import Plugins
from modhook.plugin.offered import offered_units
from modhook.study import Study
from modhook.study.units import KINDS, kinds
from modhook.unit.group import read
from modhook.unit.units import Units


def masked_of(study: Study, model: nn.Module, plugins: Plugins) -> Masked:
    """Return what has a mask. Raises `UserError` for units that the network does not have, `PatternError`, `PluginError`."""
    given = [_units(name, model, plugins) for name in kinds(study.masks)]
    return masked_by(model, given[0] if len(given) == 1 else given, study.masks.include, study.masks.exclude)


def _units(name: str, model: nn.Module, plugins: Plugins) -> Any:
    if name in KINDS:
        return name
    if (text := offered_units(name)) is not None:
        return Units(read(text))
    function = plugins.code(name, "function").thing
    if not callable(function):
        raise PluginError(f"masks.units {name!r} must be a function of the network, not {type(function).__name__}.")
    try:
        return function(model)
    except ModhookError:
        raise
    except Exception as error:
        raise PluginError(f"masks.units {name!r} fails: {told(error)}.") from error
