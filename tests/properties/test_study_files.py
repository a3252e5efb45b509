"""Whatever stands in a study file, loading it gives a checked study or a `StudyError` that lists what is wrong."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modhook.errors import StudyError
from modhook.plugin.manager import Plugins, plugins
from modhook.study import Study, difference, load, points, resolved, restore
from modhook.values.text import dotted

BASE: dict[str, Any] = {
    "study": {"name": "scan", "seeds": 2},
    "task": {"name": "addmul", "valid_size": 500},
    "model": {"name": "fnn", "hidden": [8, 8]},
    "train": {"steps": 10, "batch": 64, "lr": 1e-3},
    "masks": {"steps": 5, "samples": 4, "exclude": ["*bias*"]},
    "analyses": {"sharing": {}},
    "run": {"threads": 1},
    "sweep": {"masks.beta": [1e-5, 3e-5]},
    "variants": {"quick": {"train.steps": 3}},
}
PATHS = [
    (),
    *((section,) for section in BASE),
    *((section, key) for section, table in BASE.items() for key in table),
    *(("masks", key) for key in ("init", "clip", "include", "sampler", "executor", "batch", "wibble")),
    *(("train", key) for key in ("betas", "decay_at", "weights", "optimizer", "clip")),
    ("sweep", "masks.samples"),
    ("sweep", "model.hidden"),
    ("sweep", "task"),
    ("variants", "quick", "masks.steps"),
    ("variants", "quick", "sweep"),
]

WORDS = st.sampled_from(
    ["", "scan", "fnn", "addmul", "posthoc", "masks.beta", "../x", "math:sqrt", "no.such:thing", "a\0b", "é"]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 200),
    st.integers(),
    st.floats(),
    WORDS,
    TEXTS,
)
KEYS = st.one_of(st.sampled_from(["name", "steps", "beta", "masks.beta", "hidden", "quick", "sharing"]), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
PLAUSIBLE = st.sampled_from(
    [0, 1, 8, 64, 0.5, 1e-5, [8], [4, 8], [1, 2, 4], [[8], [4, 4]], ["*weight*"], "loop", "fnn", {}]
)


@pytest.fixture(scope="module")
def installed() -> Plugins:
    """The plugins that modhook itself brings."""
    return plugins()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the examples of one test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document.setdefault(key, {})
        if not isinstance(document, dict):
            return
    document[path[-1]] = copy.deepcopy(value)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A study that is in order, with a few values replaced, added or taken out."""
    document = copy.deepcopy(BASE)
    for path, value in draw(st.lists(st.tuples(st.sampled_from(PATHS), PLAUSIBLE | VALUES), max_size=4)):
        if path:
            _put(document, path, value)
        elif isinstance(value, dict):
            document |= value
    for section in draw(st.sampled_from([[], [], [], ["variants"], ["run"], ["sweep"], ["masks"], ["study"]])):
        document.pop(section, None)
    return document


def _toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return str(value)


def _load(folder: Path, text: str, installed: Plugins, **options: Any) -> Study | None:
    """Return the study, or None if it is refused as it should be."""
    path = folder / "study.toml"
    path.write_bytes(text.encode())
    try:
        return load(path, plugins=installed, **options)
    except StudyError as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() for problem in problems)
    assert len(set(problems)) == len(problems)
    return None


@settings(max_examples=300, deadline=None)
@given(document=documents(), variant=st.sampled_from([None, None, "quick", "quick", "other"]))
def test_any_document_is_a_study_or_a_list_of_mistakes(
    folder: Path, installed: Plugins, document: dict[str, Any], variant: str | None
) -> None:
    """No table of wrong types, names, numbers or nestings makes loading crash, and what is loaded goes into a cube and back."""
    text = "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in document.items())
    study = _load(folder, text, installed, variant=variant)
    if study is None:
        return
    assert study.study.seeds in range(1, 10_001)
    assert all(point.study.mask_batch % point.study.masks.samples == 0 for point in points(study))
    table = json.loads(json.dumps(resolved(study), allow_nan=False))
    assert difference(table, resolved(restore(table, plugins=installed))) == []


RIGHT: dict[tuple[str, ...], st.SearchStrategy[Any]] = {
    ("study", "seeds"): st.integers(1, 10),
    ("study", "description"): TEXTS,
    ("task", "valid_size"): st.integers(1, 1000),
    ("train", "lr"): st.floats(1e-300, 1e300) | st.integers(1, 9),
    ("train", "clip"): st.floats(0, 1e300),
    ("train", "decay_at"): st.lists(st.integers(1, 2**63 - 1), max_size=3),
    ("masks", "init"): st.floats(allow_nan=False, allow_infinity=False),
    ("masks", "include"): st.lists(TEXTS.filter(bool), min_size=1, max_size=3),
    ("masks", "executor"): st.sampled_from(["auto", "fastest", "vmap", "loop"]),
    ("sweep", "masks.beta"): st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True),
    ("sweep", "masks.samples"): st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3, unique=True),
    ("sweep", "model.hidden"): st.sampled_from([[[4]], [[4], [4, 4]], [[4, 4], [4, 8], [8]]]),
}


@settings(max_examples=100, deadline=None)
@given(values=st.fixed_dictionaries({}, optional=RIGHT))
def test_right_documents_survive_the_way_into_a_cube(
    folder: Path, installed: Plugins, values: dict[tuple[str, ...], Any]
) -> None:
    """Every right value is taken as it is, in the file and in every point of the grid, and comes back from a cube equal."""
    document = copy.deepcopy(BASE)
    for path, value in values.items():
        _put(document, path, value)
    study = _load(folder, "".join(f"{_toml(k)} = {_toml(v)}\n" for k, v in document.items()), installed)
    assert study is not None
    table = json.loads(json.dumps(resolved(study), allow_nan=False))
    for (section, key), value in values.items():
        if section != "sweep" and key != "clip":  # a clip of 0 is none
            assert table[section][key] == value
    sweep = document["sweep"]
    grid = points(study)
    assert len(grid) == math.prod(len(v) for v in sweep.values())
    assert {point.study.masks.beta for point in grid} == set(sweep["masks.beta"])
    assert len({tuple(point.labels.values()) for point in grid}) == len(grid)
    back = restore(table, plugins=installed)
    assert resolved(back) == resolved(study)
    assert [p.labels for p in points(back)] == [p.labels for p in grid]


@settings(max_examples=200, deadline=None)
@given(
    path=st.sampled_from([p for p in PATHS if p]),
    value=st.one_of(VALUES.map(_toml), TEXTS),
    text=st.none() | TEXTS,
)
def test_any_set_is_taken_or_refused(
    folder: Path, installed: Plugins, path: tuple[str, ...], value: str, text: str | None
) -> None:
    """No `--set`, however mangled, makes loading crash."""
    base = "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in BASE.items())
    _load(folder, base, installed, overrides=[text if text is not None else f"{dotted(path)}={value}"])


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60) | st.text(alphabet='[]{}=."\n# masktruein0123', max_size=60).map(str.encode))
def test_any_bytes_are_refused(folder: Path, installed: Plugins, data: bytes) -> None:
    """A file of arbitrary bytes is refused in order: it lacks a study at the least."""
    path = folder / "study.toml"
    path.write_bytes(data)
    with pytest.raises(StudyError):
        load(path, plugins=installed)
