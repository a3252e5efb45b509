"""Running a study: data, network, protocol, cube."""

from modhook.run.drive import Outcome, run_study
from modhook.run.finished import FinishedRun

__all__ = ["FinishedRun", "Outcome", "run_study"]
