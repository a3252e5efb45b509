"""Sweeps: the grid, its labels, and the checking of every value and every point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modhook.study import Study, points

Problems = Callable[..., tuple[str, ...]]
Loaded = Callable[..., Study]


def _sweep(**keys: str) -> dict[tuple[str, str], str]:
    return {("sweep", f'"{key.replace("__", ".")}"'): values for key, values in keys.items()}


def test_grid_is_the_product_in_order(loaded: Loaded) -> None:
    """The grid has one study per combination, the last key fastest, each with exactly its own values."""
    study = loaded(_sweep(masks__beta="[1e-5, 3e-5]", train__steps="[10, 20, 30]"))
    grid = points(study)
    expected = [(b, s) for b in (1e-5, 3e-5) for s in (10, 20, 30)]
    assert [(p.labels["masks.beta"], p.labels["train.steps"]) for p in grid] == expected
    assert [(p.study.masks.beta, p.study.train.steps) for p in grid] == expected
    assert all(list(p.labels) == ["masks.beta", "train.steps"] and not p.study.sweep for p in grid)
    assert study.sweep == {"masks.beta": (1e-5, 3e-5), "train.steps": (10, 20, 30)}


def test_study_without_a_sweep_is_one_point(loaded: Loaded) -> None:
    """Without a sweep there is one point, without labels, and it is the study itself."""
    study = loaded()
    (point,) = points(study)
    assert (point.labels, point.study) == ({}, study)
    assert points(points(loaded(_sweep(masks__beta="[1, 2]")))[0].study)[0].labels == {}


@pytest.mark.parametrize(
    ("key", "values", "labels"),
    [
        ("model.hidden", "[[800, 800, 800, 800], [400, 400, 200], [8]]", ["800x4", "400-400-200", "8"]),
        ("masks.beta", "[1e-5, 0.5, 2]", [1e-5, 0.5, 2.0]),
        ("masks.steps", "[3, 4]", [3, 4]),
        ("task.mode", '["apart", "together"]', ["apart", "together"]),
        ("task.fragile", "[false]", ["false"]),
        ("task.limit", '["all", 3]', ["all", "3"]),
        (
            "task.extra",
            '[[-1, 2], ["a-b", "c"], [], [[1, 2], [3]], [[1, 1], [1, 1]]]',
            ["-1,2", "a-b,c", "empty", "1-2,3", "1x2-1x2"],
        ),
        ("train.betas", "[[0.9, 0.999], [0.9, 0.995]]", ["0.9-0.999", "0.9-0.995"]),
    ],
)
def test_labels(loaded: Loaded, key: str, values: str, labels: list[Any]) -> None:
    """A coordinate's labels are all numbers of one type or all texts, and lists are spelled for people."""
    found = [point.labels[key] for point in points(loaded({("sweep", f'"{key}"'): values}))]
    assert found == labels
    assert len({type(label) for label in found}) == 1


def test_keys_may_be_written_without_quotes(loaded: Loaded) -> None:
    """`masks.beta` under [sweep] means the same with and without quotes."""
    assert loaded({("sweep", "masks.beta"): "[1, 2]"}).sweep == loaded(_sweep(masks__beta="[1, 2]")).sweep


def test_swept_key_needs_no_value_of_its_own(loaded: Loaded) -> None:
    """A required key may be given by the sweep alone, and a value that is never run is not looked at."""
    assert len(points(loaded({("masks", "steps"): None, **_sweep(masks__steps="[3, 4]")}))) == 2
    assert len(points(loaded({("masks", "samples"): "3", **_sweep(masks__samples="[2, 4]")}))) == 2


@pytest.mark.parametrize(
    ("key", "values", "problem"),
    [
        ("masks.beta", "[]", 'sweep."masks.beta": an empty list; give at least one value, or leave the key out'),
        ("masks.beta", "1e-4", 'sweep."masks.beta": 0.0001 is not a list of values'),
        ("masks.beta", "[1, -1.0]", 'sweep."masks.beta"[1]: must be at least 0, not -1.0'),
        ("masks.beta", "[-1.0, 1]", 'sweep."masks.beta"[0]: must be at least 0, not -1.0'),
        ("masks.beta", "[1, 2, 1.0]", 'sweep."masks.beta"[2]: 1.0 is there already at [0]'),
        ("masks.beta", "[1, nan]", 'sweep."masks.beta"[1]: nan is not finite'),
        ("masks.beta", "[1, {}]", 'sweep."masks.beta"[1]: {} is no number, text, truth value or list'),
        ("masks.betta", "[1, 2]", "sweep.\"masks.betta\": unknown key (did you mean 'beta'?)"),
        ("model.hidden", "[[8], [8, 0]]", 'sweep."model.hidden"[1][1]: must be at least 1, not 0'),
        (
            "model.hidden",
            '[[8, 8], "8x2"]',
            'sweep."model.hidden"[1]: "8x2" has the same label, 8x2, as the value at [0]',
        ),
        (
            "task.mode",
            '["apart", "appart"]',
            'sweep."task.mode"[1]: "appart" is none of "together", "apart" (did you mean \'apart\'?)',
        ),
        ("task.size", "[1, 13]", 'sweep."task.size"[1]: task: a toy of size 13 is unlucky; choose another size'),
        ("masks.steps.x", "[1]", 'sweep."masks.steps.x": cannot be set, because masks.steps is 5 and no table'),
    ],
)
def test_wrong_sweep_value_is_named(problems: Problems, key: str, values: str, problem: str) -> None:
    """A wrong value of a sweep is named by its place in the list, a wrong key by itself, once."""
    assert problems({("sweep", f'"{key}"'): values}) == (problem,)


@pytest.mark.parametrize("key", ["study.seeds", "run.threads", "analyses.sharing.pooled", "task.name", "masks", "x.y"])
def test_what_cannot_be_swept(problems: Problems, key: str) -> None:
    """Seeds, machine settings, analyses and the task itself are no dimension of a cube."""
    (line,) = problems({("sweep", f'"{key}"'): "[1, 2]"})
    assert line.startswith("sweep.")
    assert key in line
    assert (
        'cannot be swept; write a key of task, model, train, masks, sampler (task.name aside), such as "masks.beta"'
        in line
    )


def test_mistakes_of_all_values_at_once(problems: Problems) -> None:
    """Several wrong values, of several keys, are all reported, and the file's other mistakes once."""
    found = problems({("train", "lr"): "0", **_sweep(masks__beta="[1, -1, -2]", masks__lr="[0.1, 0]")})
    assert found == (
        "train.lr: must be greater than 0, not 0.0",
        'sweep."masks.beta"[1]: must be at least 0, not -1.0',
        'sweep."masks.beta"[2]: must be at least 0, not -2.0',
        'sweep."masks.lr"[1]: must be greater than 0, not 0.0',
    )


def test_values_that_do_not_go_together(problems: Problems) -> None:
    """Each value alone may be right and a combination wrong: the point is named."""
    found = problems(_sweep(masks__samples="[2, 3]", masks__batch="[6, 8]"))
    assert found == ('sweep."masks.batch"[1]: 8 is not divisible by masks.samples = 3; choose 6 or 9, for example',)
    (line,) = problems(_sweep(masks__samples="[1, 3]", masks__lr="[1, 2]", train__batch="[3, 4]"))
    assert line.startswith('sweep."train.batch"[1]: 4 is not divisible by masks.samples = 3')
    pairs = _sweep(task__size="[1, 2]", task__extra="[1, 2]") | {("task", "taboo"): "[2, 2]"}
    (line,) = problems(pairs)
    assert line == "sweep: at the point task.size = 2, task.extra = 2: task: size 2 and extra 2 are taboo together"
    (line,) = problems(_sweep(masks__samples="[2, 3]"))
    assert line.startswith('sweep."masks.samples"[1]: train.batch: 128 is not divisible by masks.samples = 3')


def test_points_share_the_layout_of_the_cube(problems: Problems) -> None:
    """One cube has one set of splits: a sweep that changes them is refused."""
    assert problems(_sweep(task__splits='[["iid"], ["hard"]]')) == (
        'sweep."task.splits"[1]: the task\'s splits are hard here and iid at the first point; one cube needs the same in all its runs',
    )


def test_options_of_the_sampler(loaded: Loaded, problems: Problems) -> None:
    """`[sampler]` holds the sampler's options, checked like all others, and they can be swept."""
    assert loaded({("sampler", "temperature"): "0.5"}).sampler.temperature == 0.5
    assert [p.study.sampler.temperature for p in points(loaded(_sweep(sampler__temperature="[0.5, 2]")))] == [0.5, 2.0]
    assert problems({("sampler", "temprature"): "1"}) == (
        "sampler.temprature: unknown key (did you mean 'temperature'?)",
    )
    (line,) = problems(_sweep(sampler__temperature="[1, 0]"))
    assert line == 'sweep."sampler.temperature"[1]: must be greater than 0, not 0.0'


def test_grid_that_is_too_large(problems: Problems) -> None:
    """A grid that nobody can run is refused before it is built."""
    many = str(list(range(1, 201)))
    (line,) = problems(_sweep(train__steps=many, masks__steps=many, masks__warmup=many))
    assert line == "sweep: a grid of 8000000 points; at most 10000 are allowed"


def test_set_on_a_swept_key(problems: Problems, loaded: Loaded) -> None:
    """`--set` on a swept key would be without effect: it is refused, with the way to narrow the sweep, which works."""
    sweep = _sweep(masks__beta="[1, 2]")
    (line,) = problems(sweep, overrides=["masks.beta=3"])
    why, _, what_to_do = line.partition("; ")
    assert why == "masks.beta: cannot be given by --set, because [sweep] runs over 'masks.beta'"
    assert what_to_do == """narrow that with --set 'sweep."masks.beta"=[3]'"""
    assert loaded(sweep, overrides=['sweep."masks.beta"=[3]']).sweep == {"masks.beta": (3,)}
    assert loaded(sweep, overrides=["sweep.masks.lr=[3]"]).sweep == {"masks.beta": (1, 2), "masks.lr": (3,)}
    assert loaded(sweep, overrides=["sweep={}"]).sweep == {}


def test_variant_narrows_a_sweep(loaded: Loaded) -> None:
    """A variant that gives one value for a swept key takes that dimension out; one that gives a list replaces it."""
    sweep = _sweep(masks__beta="[1, 2]", masks__lr="[1, 2]")
    one = loaded(sweep, after='[variants.v]\n"masks.beta" = 3\n', variant="v")
    assert (one.sweep, one.masks.beta) == ({"masks.lr": (1, 2)}, 3.0)
    other = loaded(sweep, after='[variants.v.sweep]\n"masks.beta" = [5]\n', variant="v")
    assert other.sweep == {"masks.beta": (5,), "masks.lr": (1, 2)}
    assert loaded(sweep, after="[variants.v]\nsweep = {}\n", variant="v").sweep == {}
