"""`check_figure`, `check_protocol`, `check_tracker`: sound ones pass, and each broken promise is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure as Drawing

import modhook
from modhook import Analysis, Figure, Protocol, Task, Tracker, Variable
from modhook.plugin.manager import plugins
from modhook.testing import check_figure, check_protocol, check_tracker


def changed(of: type, **members: Any) -> Any:
    """The plugin with other members."""
    return type("Changed", (of,), members)


# -- figures


class Densities(Analysis):
    def variables(self, task: Task) -> tuple[Variable, ...]:
        return (Variable("mine/density", ("stage",), "float64", "share of kept weights"),)

    def compute(self, run: Any) -> dict[str, Any]:
        return {"mine/density": np.array([run.masks[s].density for s in run.stages])}


class Bars(Figure):
    """One bar per stage."""

    requires = ("mine/density",)

    def draw(self, cubes: Sequence[xr.DataTree]) -> Any:
        density = cubes[0]["mine"]["density"].mean("seed")
        drawing = Drawing(figsize=(2, 2))
        drawing.subplots().bar(density["stage"].values, density)
        return drawing


def of_a_seed_that_is_not_there(self: Bars, cubes: Sequence[xr.DataTree]) -> Any:
    """Take the first seed that is there."""
    done = [float(v) for v in cubes[0]["mine"]["density"].isel(stage=0) if np.isfinite(v)]
    assert done[0] >= 0
    return Bars.draw(self, cubes)


def with_a_warning(self: Bars, cubes: Sequence[xr.DataTree]) -> Any:
    """numpy warns where every number is missing."""
    np.nanmean(cubes[0]["mine"]["density"].values, axis=0)
    return Bars.draw(self, cubes)


def in_pyplot(self: Bars, cubes: Sequence[xr.DataTree]) -> Any:
    """A figure that pyplot keeps."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(2, 2))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"draw": of_a_seed_that_is_not_there}, "draw fails on a cube in which no run has finished yet: IndexError"),
        ({"draw": with_a_warning}, "draw warns on a cube in which no run has finished yet: RuntimeWarning: Mean of empty slice"),
        ({"draw": in_pyplot}, "draw leaves a figure in pyplot"),
        ({"draw": lambda self, cubes: None}, "returned nothing, not a matplotlib.figure.Figure"),
        ({"requires": "mine/density"}, r"has requires = 'mine/density', a text where a tuple is wanted: write \('mine/density',\)"),
        ({"requires": ("density",)}, r"has requires = \('density',\), but variables are named 'group/variable'"),
        ({"rank": "first"}, "has rank = 'first', which must be a whole number"),
    ],
)  # fmt: skip
def test_a_figure_that_breaks_a_promise(members: dict[str, Any], said: str) -> None:
    """Each mistake of a figure is found, and the message names it."""
    with pytest.raises(AssertionError, match=said):
        check_figure(changed(Bars, **members), analyses=[Densities])
    if members.get("draw") is in_pyplot:
        import matplotlib.pyplot as plt

        plt.close("all")


def test_figures_that_are_drawn() -> None:
    """One with its own analysis, and one of an installed analysis, pass; a variable that nobody writes is named."""
    check_figure(Bars, analyses={Densities: {}})
    check_figure(plugins().load("figures", "kept_weights"), analyses=["sharing"])
    with pytest.raises(AssertionError, match="Changed cannot be drawn here: it needs the variable mine/other, which the cube does not"):
        check_figure(changed(Bars, requires=("mine/other",)), analyses=[Densities])


# -- protocols


class Untrained(Protocol):
    """Masks on the network as it is initialised."""

    trains = False

    def stages(self, task: Task) -> tuple[str, ...]:
        return ("unmasked", *self.masked_stages(task))

    def masked_stages(self, task: Task) -> tuple[str, ...]:
        return tuple(stage.name for stage in task.stages)[:2]

    def run(self, context: Any) -> None:
        if context.done("unmasked"):
            context.load_weights()
        else:
            with context.stage("unmasked", 0) as record:
                record.keep_weights = True
                record.scores = context.score()
        context.model.eval().requires_grad_(False)
        for number, stage in enumerate(self.masked_stages(context.task)):
            if not context.done(stage):
                self.mask(context, stage, number)

    def mask(self, context: Any, stage: str, number: int) -> None:
        with context.stage(stage, 2) as record:
            fit = modhook.fit_masks(
                context.model,
                context.batches(stage, context.study.mask_batch),
                context.task.loss,
                samples=2,
                label=stage,
                **context.mask_options(),
            )
            record.masks, record.logits = self.found(fit, number)
            record.scores = context.score(record.masks)

    def found(self, fit: Any, number: int) -> tuple[Any, Any]:
        return fit.masks, dict(fit.logits)


def remembered(self: Any, context: Any, stage: str, number: int) -> None:
    """What the process has computed before leaks into the weights."""
    self.before = getattr(self, "before", 0) + 1
    with torch.no_grad():
        context.model[0].weight.mul_(self.before)
    Untrained.mask(self, context, stage, number)


def every_stage(self: Any, context: Any) -> None:
    """Never look at what is done."""
    context.done = lambda stage: False
    Untrained.run(self, context)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"stages": lambda self, task: "unmasked"}, "stages must return a tuple of names, not 'unmasked'"),
        ({"masked_stages": lambda self, task: ("first", "first")}, "stages names a stage twice"),
        ({"stages": lambda self, task: ("unmasked", "control")}, "masked_stages must be some of stages"),
        ({"mask": lambda self, context, stage, number: None}, "ended without computing control, first, which it declares"),
        ({"found": lambda self, fit, number: (None, None)}, "stage 'control' left no masks; its protocol needs a repair"),
        ({"stages": lambda self, task: ("begin", "control", "first")}, "the stage 'unmasked' is none that its protocol declares: begin,"),
        ({"mask": remembered}, "a run that is stopped after every stage has other scores"),
        ({"run": every_stage}, "unmasked is computed again in a run that was stopped after it"),
    ],
)
def test_a_protocol_that_breaks_a_promise(members: dict[str, Any], said: str) -> None:
    """Each mistake of a protocol is found, and the message names it."""
    if "masked_stages" in members:
        members = {**members, "run": lambda self, context: None}
    if "stages" in members and not isinstance(members["stages"](None, None), str):
        members = {**members, "masked_stages": lambda self, task: ("control", "first")}
    with pytest.raises(AssertionError, match=said):
        check_protocol(changed(Untrained, **members))


def test_protocols_that_keep_their_promises() -> None:
    """One of one's own without training, and the paper's, pass."""
    check_protocol(Untrained)
    check_protocol(plugins().load("protocols", "posthoc"))


# -- trackers


class Told(Tracker):
    """Notes what it is told, of all that were made."""

    calls: list[tuple[str, Any]] = []  # noqa: RUF012 - shared on purpose: the test looks at it

    def place(self, cube: str) -> None:
        self.calls.append(("place", cube.rpartition("/")[2]))

    def study_started(self, name: str, runs: int) -> None:
        self.calls.append((name, runs))

    def run_started(self, label: str) -> None:
        self.calls.append(("begin", label))

    def run_settings(self, settings: Mapping[str, Any]) -> None:
        self.calls.append(("settings", settings["seed"]))

    def stage_started(self, stage: str, steps: int) -> None:
        self.calls.append((stage, steps))

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("step", step))

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        self.calls.append((stage, sorted(scores)))

    def stage_masks(self, stage: str, masks: Mapping[str, Any]) -> None:
        self.calls.append((f"masks of {stage}", {str(mask.dtype) for mask in masks.values()}))

    def run_scores(self, scores: Mapping[str, float]) -> None:
        self.calls.append(("scores", len(scores)))

    def run_finished(self, label: str) -> None:
        self.calls.append(("end", label))

    def close(self) -> None:
        self.calls.append(("close", None))


def test_a_tracker_hears_of_everything_in_order() -> None:
    """The calls of the study that it is told of last are those of a run of modhook, one after the other."""
    Told.calls.clear()
    check_tracker(Told)
    last = len(Told.calls) - Told.calls[::-1].index(("place", "checked.zarr")) - 1
    scores = ["accuracy/both", "accuracy/first", "accuracy/second"]
    expected: list[tuple[str, Any]] = [("place", "checked.zarr"), ("checked", 2)]
    for seed in (1, 2):
        expected += [("begin", f"seed={seed}"), ("settings", seed)]
        for stage in ("unmasked", "control", "first", "second"):
            masks = [] if stage == "unmasked" else [(f"masks of {stage}", {"torch.bool"})]
            expected += [(stage, 2), ("step", 1), ("step", 2), *masks, (stage, scores)]
        expected += [("scores", 4 * len(scores)), ("end", f"seed={seed}")]
    assert Told.calls[last:] == [*expected, ("close", None)]


def averages(self: Tracker, step: int, values: Mapping[str, float]) -> None:
    """Every step has a loss, it believes."""
    assert values["loss"] >= 0


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "Changed has none of a tracker's methods"),
        ({"step": lambda self, step: None}, r"has step\(self, step\), but it is called as step\(step, values\)"),
        ({"step": averages}, r"in a study with a failure, step\(1, \{\}\) fails: KeyError: 'loss'"),
        ({"close": lambda self: self.file.close()}, r"in a study with a failure, close\(\) fails: AttributeError"),
        ({"__init__": lambda self, folder: None, "close": lambda self: None}, "must be made without arguments"),
    ],
)
def test_a_tracker_that_breaks_a_promise(members: dict[str, Any], said: str) -> None:
    """Each mistake of a tracker is found, and the message names it."""
    with pytest.raises(AssertionError, match=said):
        check_tracker(changed(Tracker, **members))
