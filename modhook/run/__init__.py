"""Running a study: data, network, protocol, cube."""

from modhook.run.drive import Outcome, run_study

__all__ = ["Outcome", "run_study"]
