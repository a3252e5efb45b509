"""What a cube says of each function, as verdicts with their numbers."""

from modhook.findings.judge import THRESHOLDS, VERDICTS, Compared, Finding, Measured, judge, thresholds_of, verdict
from modhook.findings.reading import measured

__all__ = ["THRESHOLDS", "VERDICTS", "Compared", "Finding", "Measured", "judge", "measured", "thresholds_of", "verdict"]
