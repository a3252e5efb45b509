"""What is wrong with a plugin's class, or with what an analysis declares, is said before anything is laid out or computed."""

from __future__ import annotations

from typing import Any

import pytest

from modhook import Analysis, Figure, Protocol, Ranking, Task, Tracker, Variable
from modhook.errors import PluginError, UserError
from modhook.plugin.declared import mistake
from modhook.plugin.manager import KINDS, plugins
from modhook.run.declaring import labels_of, once, variables_of

OF = {"tasks": Task, "analyses": Analysis, "figures": Figure, "protocols": Protocol, "trackers": Tracker}


class Complete(Tracker):
    """Takes what it is told, in other words."""

    def step(self, *told: Any, **more: Any) -> None:
        """Take anything."""

    @staticmethod
    def message(text: str) -> None:
        """Need no tracker."""

    @classmethod
    def close(cls, hastily: bool = False) -> None:
        """Take more than is asked for."""


def made(kind: str, **members: Any) -> type:
    """Return a class of a kind with these members, and the others as they come."""
    needed = {name: (lambda self, *given: None) for name in getattr(OF[kind], "__abstractmethods__", ())}
    if kind == "tasks":
        needed |= {"splits": ("all",), "stages": ()}
    return type("Mine", (OF[kind],), {**needed, **members})


@pytest.mark.parametrize(
    ("kind", "members", "said"),
    [
        ("tasks", {"score": lambda self, batch: {}}, "has score(self, batch), but it is called as score(net, batch)"),
        ("tasks", {"loss": lambda self, net, batch, weight: 0}, "has loss(self, net, batch, weight), but it is called as loss(net, batch)"),
        ("tasks", {"splits": lambda self: ("all",)}, "has splits as a method, but it is read without a call: write @property above it"),
        ("tasks", {"shape": property(lambda self: {})}, "has shape as a property, but it is called, shape(): take @property away"),
        ("tasks", {"shape": {"inputs": 3}}, "has shape = {'inputs': 3}, but it is called, shape()"),
        ("analyses", {"compute": lambda self: {}}, "has compute(self), but it is called as compute(run)"),
        ("analyses", {"labels": staticmethod(lambda task: {})}, "has labels(task), but it is called as labels(task, stages)"),
        ("figures", {"draw": lambda: None}, "has draw(), but it is called as draw(cubes)"),
        ("protocols", {"trains": lambda self: True}, "has trains as a method, but it is read without a call"),
        ("trackers", {"stage_finished": lambda self, stage: None}, "has stage_finished(self, stage), but it is called as"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_be_called(kind: str, members: dict[str, Any], said: str) -> None:
    """Other arguments, a method where a property is, and the other way, are told with both ways of calling."""
    assert mistake(kind, made(kind, **members), KINDS[kind]).startswith(said)
    assert mistake(kind, made(kind), KINDS[kind]) == ""


def test_what_can_be_called_is_left_alone() -> None:
    """Further and optional arguments, static and class methods are nobody's mistake, and every plugin of modhook passes."""
    assert mistake("trackers", Complete, Tracker) == ""
    assert mistake("samplers", Ranking, KINDS["samplers"]) == "does not define scores, which a Sampler needs"
    installed = plugins()
    assert [e.spec.name for kind in KINDS for e in installed.entries(kind) if mistake(kind, e.load(), KINDS[kind])] == []


def variable(name: str = "mine/share", **other: Any) -> Variable:
    """A variable."""
    return Variable(name, ("stage",), "float64", "a share", **other)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (variable(), "variables of the analysis 'a' must return a tuple, not one Variable"),
        (None, "must return a tuple of modhook.Variable, not None"),
        ("mine/share", "must return a tuple of modhook.Variable, not 'mine/share'"),
        ((variable(), "mine/other"), "must return a tuple of modhook.Variable"),
        ((variable(), variable()), "declares mine/share twice"),
        ((variable("scores/share"),), "the group 'scores' is modhook's own; name another, such as a/share"),
        ((variable("masks/a/share"),), "the group 'masks' is modhook's own"),
    ],
)
def test_declarations_that_are_none(found: Any, said: str) -> None:
    """One sentence says what an analysis must declare instead."""
    analysis = made("analyses", variables=lambda self, task: found)()
    with pytest.raises(PluginError) as caught:
        variables_of("a", analysis, None)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_declarations_that_fail() -> None:
    """The author's line is told; what an analysis refuses itself stays what it says; a table is shown in one of two ways."""

    def fails(self: Any, task: Any) -> Any:
        return (variable(attrs={"table": "counts"}),)

    def refuses(self: Any, task: Any) -> Any:
        raise UserError("it needs two stages.")

    said = r"ValueError: attrs\['table'\] must be 'percent' or 'number', not 'counts' \(.*test_declared.py, line"
    with pytest.raises(PluginError, match=said):
        variables_of("a", made("analyses", variables=fails)(), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^it needs two stages.$"):
        variables_of("a", made("analyses", variables=refuses)(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("found", [None, {"unit": "abc"}, {"unit": 3}, {"unit": ["a", "a"]}])
def test_labels_that_are_none(found: Any) -> None:
    """Labels are lists by dimension, each label once."""
    with pytest.raises(PluginError, match=r"labels of the analysis 'a' (must return|gives 'unit' one label twice)"):
        labels_of("a", made("analyses", labels=lambda self, task, stages: found)(), None, ())  # type: ignore[arg-type]


def test_one_variable_of_two_analyses() -> None:
    """Which of two analyses would have written it was a matter of order."""
    once({"a": (variable(),), "b": (variable("mine/other"),)})
    with pytest.raises(PluginError, match="mine/share is declared by the analyses 'a' and 'b'"):
        once({"a": (variable(),), "b": (variable("mine/other"), variable())})
