"""The report: one self-contained HTML file that says what a cube holds, or what several hold side by side."""

from __future__ import annotations

import sys
import types
from typing import Any

from modhook.report.write import report_path, write_report

__all__ = ["report_path", "write_report"]


class _Report(types.ModuleType):
    """`modhook.report` is this package, and may be called: `modhook.report("a.zarr")` is `write_report("a.zarr")`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return write_report(*arguments, **options)


sys.modules[__name__].__class__ = _Report
