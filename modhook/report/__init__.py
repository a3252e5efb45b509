"""The report: one self-contained HTML file that says what a cube holds."""

from __future__ import annotations

from modhook.report.write import report_path, write_report

__all__ = ["report_path", "write_report"]
