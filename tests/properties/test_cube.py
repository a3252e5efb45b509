"""A cube against a plain dictionary: whatever is written in whatever order is read back exactly."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modhook.cube import (
    Cube,
    Plan,
    create,
    layout_variables,
    logits_from,
    masks_from,
    open_cube,
    open_for_writing,
    pack,
    weights_from,
    write_masks,
    write_weights,
)
from modhook.cube.labels import label_of, labels_of
from modhook.plugin.variables import Variable

STAGES = ["unmasked", "control", "x"]
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
kinds = st.sampled_from(["float32", "float64", "float16", "bfloat16", "int64", "bool"])
networks = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True),
    st.tuples(shapes, kinds, st.booleans()),
    min_size=1,
    max_size=5,
)
steps = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["masks", "weights", "scores", "grow"]),
        st.integers(0, 99),
    ),
    max_size=8,
)


def tensor(shape: tuple[int, ...], kind: str, salt: int) -> torch.Tensor:
    """Return random values of any sign and size, some of them tiny."""
    rng = np.random.default_rng(salt)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-12, 4, size=shape)
    if kind in ("int64", "bool"):
        values = rng.integers(-5, 5, size=shape)
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, kind))


# An example writes, packs and reads a whole cube.
@settings(max_examples=settings().max_examples // 12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks, steps=steps, half=st.booleans())
def test_a_cube_is_a_dictionary(network: dict[str, Any], steps: list[tuple[int, str, str, int]], half: bool) -> None:
    """Random networks, runs, rewrites and growth: masks, logits, weights and scores equal the model, also
    of the packed cube; the rest is empty."""
    masked = [n for n, (_, kind, wanted) in network.items() if wanted and kind.startswith(("float", "bfloat"))]
    state = {n: (shape, kind) for n, (shape, kind, _) in network.items()}
    layout = layout_variables("layout0", state, masked, ["control", "x"], "float16" if half else "float32")
    score = Variable("scores/accuracy", ("stage",), "float64", "d")
    plan = Plan(
        {},
        {"seed": [1, 2], "m.s": ["a", "b"]},
        (score, *layout.variables),
        {"scores": {"stage": STAGES}, **layout.labels},
        layout.sizes,
    )
    known: dict[tuple[Any, ...], Any] = {}
    seeds = 2
    with tempfile.TemporaryDirectory() as folder:
        cube = create(Path(folder) / "a.zarr", plan)
        for seed, point, what, salt in steps:
            run = {"seed": min(seed, seeds), "m.s": point}
            stage = STAGES[1 + salt % 2]
            if what == "grow":
                seeds = max(seeds, seed)
                cube.grow_seeds(seeds)
            elif what == "masks":
                logits = {n: tensor(state[n][0], "float32", salt + i) for i, n in enumerate(masked)}
                write_masks(cube, "layout0", run, stage, logits)
                cube.set_status(run, stage, "done")
                known["masks", run["seed"], point, stage] = logits
            elif what == "weights":
                weights = {n: tensor(*state[n], salt + i) for i, n in enumerate(state)}
                write_weights(cube, "layout0", run, weights)
                cube.set_status(run, "unmasked", "done")
                known["weights", run["seed"], point] = weights
            else:
                cube.write("scores/accuracy", float(salt), run, stage=stage)
                known["scores", run["seed"], point, stage] = float(salt)
        one_file = pack(cube.path, weights=True, logits=True).path
        for found, (key, value) in itertools.product((open_for_writing(cube.path), Cube(one_file, read_only=True)), known.items()):
            if key[0] == "masks":
                masks = masks_from(found, key[1], key[3], s=key[2])
                stored = logits_from(found, key[1], key[3], s=key[2])
                assert set(masks) == set(stored) == set(masked)
                for name in masked:
                    assert torch.equal(masks[name], value[name] >= 0)
                    assert torch.equal(stored[name], value[name].half() if half else value[name])
            elif key[0] == "weights":
                weights = weights_from(found, key[1], s=key[2])
                for name in state:
                    assert weights[name].dtype == value[name].dtype
                    assert weights[name].shape == value[name].shape
                    assert torch.equal(weights[name], value[name])
        expected = np.full((seeds, 2, 3), np.nan)
        for key, value in known.items():
            if key[0] == "scores":
                expected[key[1] - 1, "ab".index(key[2]), STAGES.index(key[3])] = value
        tree, packed = xr.open_datatree(cube.path, engine="zarr"), open_cube(one_file)
        np.testing.assert_array_equal(tree["scores/accuracy"].values, expected)
        np.testing.assert_array_equal(packed["scores/accuracy"].values, expected)
        np.testing.assert_array_equal(packed["masks/layout0/bits"].values, tree["masks/layout0/bits"].values)
        assert int((tree["runs/status"].values == 1).sum()) == sum(k[0] != "scores" for k in known)


values = st.one_of(
    st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5), st.booleans()
)


@example([2**53 + 1, 0.0])  # not every large whole number is a float64
@given(st.lists(values, min_size=1, max_size=6))
def test_labels_are_of_one_type_and_found_again(found: list[Any]) -> None:
    """Labels of one dimension have one type, are distinct, and each value leads back to its own position."""
    from modhook.cube.labels import position
    from modhook.errors import CubeError

    try:
        labels = labels_of(found, "x")
    except CubeError as error:
        assert "twice" in str(error)  # noqa: PT017 - two equal labels are the one reason allowed here
        return
    assert len({type(v) for v in labels}) == 1
    assert len(set(labels)) == len(labels) == len(found)
    for i, value in enumerate(found):
        assert position(labels, value, "x", "here") == i


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_lists_as_labels_tell_themselves_apart(sizes: list[int]) -> None:
    """The text of a list of layer sizes can be read back."""
    text = str(label_of(sizes))
    if "x" in text:
        size, times = text.split("x")
        assert sizes == [int(size)] * int(times)
    else:
        assert sizes == [int(s) for s in text.split("-")]
    assert math.prod(sizes) > 0
