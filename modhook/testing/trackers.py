"""Checks of trackers: a real study, a run that goes wrong, and one that never begins, call by call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modhook.cube import masks_from, open_cube
from modhook.errors import ModhookError, UserError
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Tracker
from modhook.run import run_study
from modhook.run.trackers import EVENTS, Trackers
from modhook.testing.common import Checked, folder, of_kind, require, same
from modhook.testing.toy import Layers, Signs

Call = tuple[str, tuple[Any, ...]]
_NAN = float("nan")


def check_tracker(tracker: type[Tracker] | str) -> None:
    """Tell a tracker of a study, call by call, in temporary folders.

    It is made without arguments; its methods take what they are told; it hears of a tiny study of two runs, of a study in which a stage
    is continued, a number is not finite and a run fails, and of one that ends before it begins; it raises nothing, and the study's
    numbers are those of a study without it.

    Raises:
        AssertionError: a promise that is not kept. UserError: what the tracker itself refuses, such as a missing package.
    """
    cls = of_kind("trackers", tracker)
    _check_methods(cls)
    with folder() as place:
        for what, calls in (("a study with a failure", _hard(place)), ("a study that is refused", _refused(place))):
            _tell(_made(cls), calls, what)
        checked = Checked(Signs, Layers, tables={"study": {"seeds": 2}})
        installed = checked.plugins()
        study = checked.study(installed)
        alone = run_study(study, place / "alone", installed, Tracker())
        told_of = Trackers({"checked": _made(cls)})
        told_of.place(str(place / "told" / "checked.zarr"))
        along = run_study(study, place / "told", installed, told_of)
        require(not told_of.failures, "; ".join(told_of.failures))
        require(not along.failed, "; ".join(along.failed))
        _check_same(alone.path, along.path)


# -- inside


def _made(cls: type[Tracker]) -> Tracker:
    try:
        return cls()
    except UserError:
        raise
    except Exception as error:
        raise AssertionError(f"{cls.__name__} must be made without arguments, but that fails: {told(error)}.") from error


def _check_methods(cls: type[Tracker]) -> None:
    own = [name for name in EVENTS if getattr(cls, name) is not getattr(Tracker, name)]
    require(bool(own), f"{cls.__name__} has none of a tracker's methods, so that it hears of nothing: {', '.join(EVENTS)}.")


def _tell(tracker: Tracker, calls: Sequence[Call], what: str) -> None:
    for event, arguments in calls:
        try:
            getattr(tracker, event)(*arguments)
        except Exception as error:
            said = str(error) if isinstance(error, ModhookError) else told(error)
            shown = f"{event}({', '.join(map(repr, arguments))})"
            raise AssertionError(f"in {what}, {shown} fails: {said}.") from error


def _hard(place: Path) -> list[Call]:
    """Return the calls of a study whose first stage is one without steps, whose second run is continued and fails."""
    on = torch.device("cpu")
    masks = {"a.weight": torch.eye(2, 3, device=on) > 0, "a.scale": torch.tensor(True, device=on), "none": torch.zeros(0, device=on) > 0}
    return [
        ("place", (str(place / "hard.zarr"),)),
        ("message", ("said before anything begins",)),
        ("study_started", ("hard", 3)),
        ("run_started", ("seed=1, masks.beta=0.0001",)),
        ("run_settings", ({"seed": 1, "masks.beta": 1e-4, "masks.units": '["head"]', "masks.relative_beta": True},)),
        ("stage_started", ("unmasked", 0)),
        ("stage_finished", ("unmasked", {"accuracy/both": 0.5})),
        ("stage_started", ("control", 2)),
        ("step", (1, {})),
        ("step", (2, {"step": 2.0, "loss": _NAN, "density": 1e30})),
        ("stage_masks", ("control", masks)),
        ("stage_finished", ("control", {"accuracy/both": _NAN})),
        ("run_scores", ({"unmasked/accuracy/both": 0.5, "control/accuracy/both": _NAN},)),
        ("run_finished", ("seed=1, masks.beta=0.0001",)),
        ("run_started", ("seed=2, masks.beta=0.0001",)),
        ("run_settings", ({"seed": 2, "masks.beta": 1e-4},)),
        ("stage_started", ("unmasked", 2000)),
        ("step", (1501, {"step": 1501.0, "loss": float("inf")})),
        ("message", ("seed=2, unmasked: it failed\nfor two reasons",)),
        ("run_scores", ({},)),
        ("run_finished", ("seed=2, masks.beta=0.0001",)),
        ("study_progress", (1, 1, 1, 3)),
        ("close", ()),
    ]


def _refused(place: Path) -> list[Call]:
    return [("place", (str(place / "refused.zarr"),)), ("close", ())]


def _check_same(alone: Any, along: Any) -> None:
    with open_cube(alone) as one, open_cube(along) as other:
        equal = one["scores"].to_dataset().equals(other["scores"].to_dataset())
    masks: list[Mapping[str, Any]] = [masks_from(path, seed=1, stage="first") for path in (alone, along)]
    equal = equal and same(*masks)
    require(equal, "the study has other numbers with the tracker than without it; it must draw no random numbers and change nothing.")
