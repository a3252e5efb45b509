"""modhook finds the weights that one function of a trained network needs.

Names are loaded on first use: importing modhook imports neither torch nor xarray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modhook import objectives as objectives
    from modhook.asking import Answer as Answer
    from modhook.asking import ask as ask
    from modhook.cube import masks_from as masks_from
    from modhook.cube import open_cube as open_cube
    from modhook.cube.tidy import tidy as tidy
    from modhook.errors import ModhookError as ModhookError
    from modhook.errors import ModhookWarning as ModhookWarning
    from modhook.errors import RunError as RunError
    from modhook.errors import TrustWarning as TrustWarning
    from modhook.errors import UserError as UserError
    from modhook.findings import compared as compared
    from modhook.fit import Fit as Fit
    from modhook.fit import fit_masks as fit_masks
    from modhook.fit import fit_masks_together as fit_masks_together
    from modhook.masks import Masks as Masks
    from modhook.masks import chance as chance
    from modhook.masks import export as export
    from modhook.masks import iomin as iomin
    from modhook.masks import iou as iou
    from modhook.masks.evaluation import evaluate as evaluate
    from modhook.masks.order import Order as Order
    from modhook.masks.order import areas as areas
    from modhook.masks.overlap import overlaps as overlaps
    from modhook.masks.parts import parts as parts
    from modhook.masks.reference import reference_masks as reference_masks
    from modhook.masks.select import matching as matching
    from modhook.masks.select import select as select
    from modhook.network.reference import reference_weights as reference_weights
    from modhook.network.unmasked import unmasked as unmasked
    from modhook.plotting import style as style
    from modhook.plotting.plot import plot as plot
    from modhook.plugin.contract import CarriedGradients as CarriedGradients
    from modhook.plugin.contract import FinishedRun as FinishedRun
    from modhook.plugin.contract import RunContext as RunContext
    from modhook.plugin.contract import StageRecord as StageRecord
    from modhook.plugin.folder import study_path as study_path
    from modhook.plugin.hookspecs import Spec as Spec
    from modhook.plugin.hookspecs import hookimpl as hookimpl
    from modhook.plugin.interfaces import Analysis as Analysis
    from modhook.plugin.interfaces import Figure as Figure
    from modhook.plugin.interfaces import Model as Model
    from modhook.plugin.interfaces import Protocol as Protocol
    from modhook.plugin.interfaces import Ranking as Ranking
    from modhook.plugin.interfaces import Sampler as Sampler
    from modhook.plugin.interfaces import Stage as Stage
    from modhook.plugin.interfaces import Task as Task
    from modhook.plugin.interfaces import Tracker as Tracker
    from modhook.plugin.variables import Variable as Variable
    from modhook.report.write import report as report
    from modhook.stacked import Report as Report
    from modhook.stacked import Stacked as Stacked
    from modhook.stacked import inspect as inspect
    from modhook.stacked import shared as shared
    from modhook.stacked import stack as stack
    from modhook.steps.train import train as train
    from modhook.unit.find import units as units
    from modhook.unit.units import Units as Units

_HOME = {
    "objectives": "objectives",
    "Answer": "asking",
    "ask": "asking",
    "masks_from": "cube",
    "open_cube": "cube",
    "tidy": "cube.tidy",
    "ModhookError": "errors",
    "ModhookWarning": "errors",
    "RunError": "errors",
    "TrustWarning": "errors",
    "UserError": "errors",
    "compared": "findings",
    "Fit": "fit",
    "fit_masks": "fit",
    "fit_masks_together": "fit",
    "Masks": "masks",
    "iomin": "masks",
    "iou": "masks",
    "chance": "masks.chance",
    "export": "masks.export",
    "evaluate": "masks.evaluation",
    "overlaps": "masks.overlap",
    "parts": "masks.parts",
    "reference_masks": "masks.reference",
    "Order": "masks.order",
    "areas": "masks.order",
    "matching": "masks.select",
    "select": "masks.select",
    "reference_weights": "network.reference",
    "unmasked": "network.unmasked",
    "CarriedGradients": "plugin.contract",
    "FinishedRun": "plugin.contract",
    "RunContext": "plugin.contract",
    "StageRecord": "plugin.contract",
    "study_path": "plugin.folder",
    "Spec": "plugin.hookspecs",
    "hookimpl": "plugin.hookspecs",
    "Analysis": "plugin.interfaces",
    "Figure": "plugin.interfaces",
    "Model": "plugin.interfaces",
    "Protocol": "plugin.interfaces",
    "Ranking": "plugin.interfaces",
    "Sampler": "plugin.interfaces",
    "Stage": "plugin.interfaces",
    "Task": "plugin.interfaces",
    "Tracker": "plugin.interfaces",
    "Variable": "plugin.variables",
    "plot": "plotting.plot",
    "style": "plotting.style",
    "report": "report",
    "Report": "stacked",
    "Stacked": "stacked",
    "inspect": "stacked",
    "shared": "stacked",
    "stack": "stacked",
    "train": "steps.train",
    "units": "unit.find",
    "Units": "unit.units",
}

__version__ = "0.1.0"
"""The version that is installed."""
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'modhook' has no attribute {name!r}") from None
    module = importlib.import_module(f"modhook.{home}")
    # A name may also be a module of its own, such as `modhook.chance`.
    value = getattr(module, name, module) if home.rpartition(".")[2] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
