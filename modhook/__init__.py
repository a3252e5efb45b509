"""modhook finds the weights that one function of a trained network needs.

Names are loaded on first use: importing modhook imports neither torch nor xarray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhook.cube import masks_from as masks_from
    from modhook.cube import open_cube as open_cube
    from modhook.errors import ModhookError as ModhookError
    from modhook.errors import RunError as RunError
    from modhook.errors import UserError as UserError
    from modhook.evaluation import evaluate as evaluate
    from modhook.fit import Fit as Fit
    from modhook.fit import fit_masks as fit_masks
    from modhook.hookspecs import Spec as Spec
    from modhook.hookspecs import hookimpl as hookimpl
    from modhook.interfaces import Analysis as Analysis
    from modhook.interfaces import Figure as Figure
    from modhook.interfaces import Model as Model
    from modhook.interfaces import Protocol as Protocol
    from modhook.interfaces import Sampler as Sampler
    from modhook.interfaces import Stage as Stage
    from modhook.interfaces import Task as Task
    from modhook.interfaces import Tracker as Tracker
    from modhook.masks import Masks as Masks
    from modhook.masks import iomin as iomin
    from modhook.masks import iou as iou
    from modhook.stacked import Report as Report
    from modhook.stacked import Stacked as Stacked
    from modhook.stacked import inspect as inspect
    from modhook.stacked import shared as shared
    from modhook.stacked import stack as stack
    from modhook.variables import Variable as Variable

_HOME = {
    "masks_from": "cube",
    "open_cube": "cube",
    "ModhookError": "errors",
    "RunError": "errors",
    "UserError": "errors",
    "evaluate": "evaluation",
    "Fit": "fit",
    "fit_masks": "fit",
    "Spec": "hookspecs",
    "hookimpl": "hookspecs",
    "Analysis": "interfaces",
    "Figure": "interfaces",
    "Model": "interfaces",
    "Protocol": "interfaces",
    "Sampler": "interfaces",
    "Stage": "interfaces",
    "Task": "interfaces",
    "Tracker": "interfaces",
    "Masks": "masks",
    "iomin": "masks",
    "iou": "masks",
    "Report": "stacked",
    "Stacked": "stacked",
    "inspect": "stacked",
    "shared": "stacked",
    "stack": "stacked",
    "Variable": "variables",
}

__version__ = "0.1.0"
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'modhook' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"modhook.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
