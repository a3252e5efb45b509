"""The plain table that goes into a cube, reading it back, and the comparison of two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from modhook.errors import StudyError
from modhook.plugin.manager import Plugins
from modhook.study import Study, difference, points, resolved, restore

Loaded = Callable[..., Study]

RICH = {
    ("task", "colour"): '"blue"',
    ("task", "noise"): "{ scale = 0.5 }",
    ("task", "folder"): '"data/toy"',
    ("task", "shares"): "{ b = 1, a = 2 }",
    ("model", "hidden"): "[3, 4]",
    ("train", "clip"): "0",
    ("masks", "exclude"): '["*bias*"]',
    ("analyses", "sharing"): "{ pooled = false }",
    ("study", "seeds"): "3",
    ("sampler", "temperature"): "0.5",
}
SWEPT = {**RICH, ("sweep", '"masks.beta"'): "[1e-5, 3e-5]", ("sweep", '"model.hidden"'): "[[8, 8], [4]]"}


def test_resolved_holds_everything_and_defaults(loaded: Loaded) -> None:
    """The table has the file's layout, with defaults filled in and only what JSON holds."""
    table = resolved(loaded(RICH))
    assert list(table) == [
        "study",
        "task",
        "model",
        "train",
        "masks",
        "analyses",
        "protocol",
        "sampler",
        "run",
        "sweep",
    ]
    assert table["task"]["colour"] == "blue"
    assert table["task"]["noise"] == {"scale": 0.5}
    assert table["task"]["folder"] == "data/toy"
    assert table["model"] == {"name": "mlp", "hidden": [3, 4], "heads": 2}
    assert table["train"]["clip"] is None
    assert table["train"]["betas"] == [0.9, 0.999]
    assert table["masks"]["samples"] == 4
    assert table["sampler"] == {"temperature": 0.5}
    assert table["analyses"] == {"sharing": {"pooled": False}}
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_resolved_does_not_depend_on_the_order_in_the_file(loaded: Loaded) -> None:
    """Two files that say the same in another order give the same text."""
    backwards = dict(reversed(RICH.items())) | {("task", "shares"): "{ a = 2, b = 1 }"}
    assert json.dumps(resolved(loaded(RICH))) == json.dumps(resolved(loaded(backwards)))


def test_swept_keys_stand_under_sweep_alone(loaded: Loaded) -> None:
    """A swept key has no value beside the sweep's that a reader could take for the one that was run."""
    table = resolved(loaded(SWEPT))
    assert table["sweep"] == {"masks.beta": [1e-5, 3e-5], "model.hidden": [[8, 8], [4]]}
    assert "beta" not in table["masks"]
    assert "hidden" not in table["model"]


@pytest.mark.parametrize("values", [{}, RICH, SWEPT])
def test_restore_reads_back_what_resolved_wrote(loaded: Loaded, toys: Plugins, values: Any) -> None:
    """A cube's attributes give the same study back, its points too, after a journey through JSON."""
    study = loaded(values)
    back = restore(json.loads(json.dumps(resolved(study))), plugins=toys)
    assert resolved(back) == resolved(study)
    assert [(p.labels, _without_file(p.study)) for p in points(back)] == [
        (p.labels, _without_file(p.study)) for p in points(study)
    ]


def _without_file(study: Study) -> Study:
    return attrs.evolve(study, path=None, grid=())


def test_restore_does_not_look_for_files(loaded: Loaded, make: Callable[..., Any], toys: Plugins) -> None:
    """A cube is read without the weights file that its study began from."""
    weights = make().parent / "w.safetensors"
    weights.write_bytes(b"")
    table = resolved(loaded({("train", "weights"): '"w.safetensors"'}))
    weights.unlink()
    assert restore(table, plugins=toys).train.weights == "w.safetensors"
    with pytest.raises(StudyError, match=r"the study in the cube: 1 mistake\n  - masks\.steps: missing"):
        restore({**table, "masks": {}}, plugins=toys)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({("masks", "beta"): "3e-5"}, ["masks.beta is 0.0001 there and 3e-5 here"]),
        (
            {("train", "steps"): "11", ("task", "mode"): '"apart"'},
            ['task.mode is "together" there and "apart" here', "train.steps is 10 there and 11 here"],
        ),
        ({("model", "hidden"): "[1]"}, ["model.hidden is [8, 8] there and [1] here"]),
        ({("masks", "exclude"): "[]"}, ["masks.exclude is nothing there and [] here"]),
        ({("task", "shares"): "{ a = 1 }"}, ["task.shares.a is absent there and 1.0 here"]),
        ({("study", "name"): '"other"'}, ['study.name is "toy" there and "other" here']),
        (
            {("sweep", '"masks.beta"'): "[1, 2]"},
            ["masks.beta is 0.0001 there and absent here", 'sweep."masks.beta" is absent there and [1, 2] here'],
        ),
        ({("study", "seeds"): "3"}, []),
        ({("study", "description"): '"words"'}, []),
        ({("run", "threads"): "1", ("run", "device"): '"cuda"'}, []),
        ({("analyses", "sharing"): "{}"}, []),
        ({("train", "steps"): "10", ("masks", "beta"): "1e-4"}, []),
    ],
)
def test_difference(loaded: Loaded, changes: Any, expected: list[str]) -> None:
    """What makes another study is named with both values; what may change when a cube is continued is not."""
    assert difference(resolved(loaded()), resolved(loaded(changes))) == expected


def test_changed_options_of_an_analysis_are_a_difference(loaded: Loaded) -> None:
    """An analysis may be added or left out, but one that is there keeps its options."""
    one, other = ({("analyses", "sharing"): f"{{ pooled = {value} }}"} for value in ("true", "false"))
    assert difference(resolved(loaded(one)), resolved(loaded(other))) == [
        "analyses.sharing.pooled is true there and false here"
    ]
    assert difference(resolved(loaded(one)), resolved(loaded())) == []


def _without(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a study's table as a modhook that did not know an option wrote it."""
    old: dict[str, Any] = json.loads(json.dumps(table))
    inner = old
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return old


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("masks", "clip_over"), '"all"', 'masks.clip_over is absent there and "all" here'),
        (("masks", "density"), "0.2", "masks.density is absent there and 0.2 here"),
        (("masks", "cut"), "{ density = 0.2 }", "masks.cut is absent there and"),
        (("train", "decay"), "0.5", "train.decay is absent there and 0.5 here"),
        (("task", "size"), "7", "task.size is absent there and 7 here"),
        (("task", "noise"), "{ scale = 0.5 }", "task.noise is absent there and"),
        (("model", "hidden"), "[1]", "model.hidden is absent there and [1] here"),
        (("sampler", "temperature"), "0.5", "sampler.temperature is absent there and 0.5 here"),
        (("analyses", "sharing", "pooled"), "false", "analyses.sharing.pooled is absent there and false here"),
    ],
)
def test_an_option_that_the_cube_does_not_know(
    keys: tuple[str, ...], value: str, told: str, loaded: Loaded, toys: Plugins
) -> None:
    """A cube of an older version can be continued with the option at its default, and with no other value."""
    analysis = {("analyses", "sharing"): "{}"} if keys[0] == "analyses" else {}
    changed = {("analyses", "sharing"): f"{{ {keys[2]} = {value} }}"} if analysis else {(keys[0], keys[1]): value}
    default, other = resolved(loaded(analysis)), resolved(loaded(changed))
    old = _without(default, *keys)
    assert difference(old, default, toys) == []
    (found,) = difference(old, other, toys)
    assert found.startswith(told)


def test_a_default_with_a_new_meaning_is_a_difference(loaded: Loaded, toys: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option says so in its metadata where its default does not do what was done before there was the option."""
    table = resolved(loaded())
    old = _without(table, "model", "heads")
    assert difference(old, table, toys) == []
    model = toys.load("models", table["model"]["name"])
    options = attrs.make_class("Options", {"heads": attrs.field(default=2, metadata={"modhook_new_meaning": True})})
    monkeypatch.setattr(model, "Options", options)
    assert difference(old, table, toys) == ["model.heads is absent there and 2 here"]


def test_where_logits_start_is_told_in_two_ways(loaded: Loaded, toys: Plugins) -> None:
    """`masks.init` was 2 by default and is now left to the sampler, whose own start is 2: the same, unlike another number."""
    here = resolved(loaded())
    there = {**here, "masks": {**here["masks"], "init": 2.0}}
    assert difference(there, here, toys) == []
    assert difference(here, there, toys) == []
    another = {**here, "masks": {**here["masks"], "init": 1.0}}
    assert difference(another, here, toys) == ["masks.init is 1.0 there and nothing here"]
