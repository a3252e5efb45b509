"""What a cube says of each function, as verdicts with their numbers."""

from modhook.findings.judge import judge, verdict
from modhook.findings.reading import measured
from modhook.findings.records import THRESHOLDS, VERDICTS, Compared, Finding, Measured, thresholds_of

__all__ = ["THRESHOLDS", "VERDICTS", "Compared", "Finding", "Measured", "judge", "measured", "thresholds_of", "verdict"]
