"""What a cube says of each function, as verdicts with their numbers."""

from modhook.findings.beside import compared, has_controls
from modhook.findings.judge import judge, verdict
from modhook.findings.reading import measured, points
from modhook.findings.records import THRESHOLDS, VERDICTS, Compared, Finding, Measured, thresholds_of

__all__ = [
    "THRESHOLDS",
    "VERDICTS",
    "Compared",
    "Finding",
    "Measured",
    "compared",
    "has_controls",
    "judge",
    "measured",
    "points",
    "thresholds_of",
    "verdict",
]
