"""Runs one module, or one loss around it, under K parameter sets at once, forward and backward, exactly."""

from __future__ import annotations

from modhook.network.shared import Kept as Kept
from modhook.network.shared import Shared as Shared
from modhook.network.shared import shared as shared
from modhook.stacked.report import Report as Report
from modhook.stacked.report import inspect as inspect
from modhook.stacked.stacked import EXECUTORS as EXECUTORS
from modhook.stacked.stacked import Stacked as Stacked
from modhook.stacked.stacked import prepare as prepare
from modhook.stacked.stacked import stack as stack

__all__ = ["EXECUTORS", "Kept", "Report", "Shared", "Stacked", "inspect", "prepare", "shared", "stack"]
