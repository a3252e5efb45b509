"""The study file: TOML into a checked `Study`, with every mistake reported at once."""

from __future__ import annotations

from modhook.study.controls import ControlsSection, ControlStage, control_label, control_stages
from modhook.study.grid import points
from modhook.study.loading import Checked, check, load, restore
from modhook.study.named import find_callable
from modhook.study.own import own_code
from modhook.study.resolve import FOR_CONTROL, difference, flat, plain_table, resolved
from modhook.study.sections import MasksSection, RunSection, StudySection, TrainSection
from modhook.study.shipped import shipped_studies, study_file
from modhook.study.structure import structure
from modhook.study.study import Named, Point, Study
from modhook.study.weights import file_name, off_file, weights_file
from modhook.values.bounds import PLAIN_NAME, Matches

__all__ = [
    "FOR_CONTROL",
    "PLAIN_NAME",
    "Checked",
    "ControlStage",
    "ControlsSection",
    "MasksSection",
    "Matches",
    "Named",
    "Point",
    "RunSection",
    "Study",
    "StudySection",
    "TrainSection",
    "check",
    "control_label",
    "control_stages",
    "difference",
    "file_name",
    "find_callable",
    "flat",
    "load",
    "off_file",
    "own_code",
    "plain_table",
    "points",
    "resolved",
    "restore",
    "shipped_studies",
    "structure",
    "study_file",
    "weights_file",
]
