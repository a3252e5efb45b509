"""Masks, logits and weights: back from the cube exactly as they were."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from modhook import masks_from
from modhook.cube import (
    Cube,
    create,
    layout_variables,
    logits_from,
    open_cube,
    weights_from,
    write_masks,
    write_weights,
)
from modhook.errors import CubeError, RunError

Fill = Callable[..., dict[str, Any]]


def cube_for(
    path: Path, plan: Callable[..., Any], state: dict[str, torch.Tensor], masked: list[str], **options: Any
) -> Cube:
    """Create a cube without a sweep for one network."""
    shapes = {n: (tuple(t.shape), t.dtype) for n, t in state.items()}
    layout = layout_variables("layout0", shapes, masked, options.pop("stages", ["control", "add"]), **options)
    labels = {"scores": {"stage": ["unmasked", "control", "add"]}, **layout.labels}
    return create(path, plan(run_dims={"seed": [1]}, variables=layout.variables, labels=labels, sizes=layout.sizes))


def test_masks_are_not_taken_from_rounded_logits(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """float16 turns -1e-9 into -0.0, which is >= 0; the mask says that the weight is gone all the same."""
    logits = {"w": torch.tensor([-1e-9, 1e-9, -0.0, 0.0, -2.0, 3.0, 1e9, -1e9, torch.inf, -torch.inf])}
    cube = cube_for(tmp_path / "a.zarr", plan, logits, ["w"], logits_dtype="float16")
    write_masks(cube, "layout0", {"seed": 1}, "add", logits)
    cube.set_status({"seed": 1}, "add", "done")
    expected = [False, True, True, True, False, True, True, False, True, False]
    assert masks_from(cube.path, 1, "add")["w"].tolist() == expected
    stored = logits_from(cube, 1, "add")["w"]
    assert stored.dtype == torch.float16
    assert (stored >= 0).tolist() != expected
    assert stored.tolist() == [-0.0, 0.0, -0.0, 0.0, -2.0, 3.0, 65504.0, -65504.0, 65504.0, -65504.0]


def test_a_samplers_own_masks_are_kept(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """A sampler whose mask is not `logits >= 0` has its own stored."""
    cube = cube_for(tmp_path / "a.zarr", plan, {"w": torch.zeros(3)}, ["w"])
    write_masks(cube, "layout0", {"seed": 1}, "add", {"w": torch.ones(3)}, {"w": torch.tensor([True, False, True])})
    cube.set_status({"seed": 1}, "add", "done")
    assert masks_from(cube.path, 1, "add")["w"].tolist() == [True, False, True]


def test_a_mask_over_one_number_comes_back(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """A parameter of dimension 0 takes one bit between its neighbours', and comes back in its shape."""
    logits = {"a": torch.tensor([1.0, -1.0]), "scale": torch.tensor(-0.5), "b": torch.tensor([2.0])}
    cube = cube_for(tmp_path / "a.zarr", plan, logits, list(logits))
    write_masks(cube, "layout0", {"seed": 1}, "add", logits)
    write_weights(cube, "layout0", {"seed": 1}, logits)
    for stage in ("unmasked", "add"):
        cube.set_status({"seed": 1}, stage, "done")
    masks, weights = masks_from(cube.path, 1, "add"), weights_from(cube.path, 1)
    assert {n: m.tolist() for n, m in masks.items()} == {"a": [True, False], "scale": False, "b": [True]}
    assert weights["scale"].shape == logits_from(cube, 1, "add")["scale"].shape == ()
    assert float(weights["scale"]) == -0.5


def test_a_whole_network_comes_back(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """Weights, running statistics and counters load into a new network, which computes the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3).double())
    model[1](torch.randn(9, 6))
    cube = cube_for(tmp_path / "a.zarr", plan, model.state_dict(), ["0.weight"])
    write_weights(cube, "layout0", {"seed": 1}, model.state_dict())
    cube.set_status({"seed": 1}, "unmasked", "done")
    found = weights_from(cube.path, 1)
    assert list(found) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3).double()).load_state_dict(found)


def test_odd_tensors(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """0-d, empty, one-element, bool, half-precision tensors, negative zero, infinities and large integers survive."""
    state = {
        "a.scalar": torch.tensor(-0.0),
        "a.empty": torch.zeros(0, 3),
        "b.one": torch.tensor([torch.inf]),
        "b.bf16": torch.tensor([1.5, -3e38], dtype=torch.bfloat16),
        "b.half": torch.tensor([65504.0, 6e-8], dtype=torch.float16),
        "flag": torch.tensor([True, False]),
        "big": torch.tensor([2**62 + 1, -5]),
        "byte": torch.tensor([[255]], dtype=torch.uint8),
        "last": torch.randn(2, 1, 3),
    }
    masked = ["last", "a.scalar", "a.empty", "b.one"]
    cube = cube_for(tmp_path / "a.zarr", plan, state, masked)
    write_weights(cube, "layout0", {"seed": 1}, state)
    logits = {n: torch.randn(state[n].shape) for n in masked}
    write_masks(cube, "layout0", {"seed": 1}, "control", logits)
    for stage in ("unmasked", "control"):
        cube.set_status({"seed": 1}, stage, "done")
    found = weights_from(cube, 1)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name
    assert bool(torch.signbit(found["a.scalar"]))
    masks = masks_from(cube.path, 1, "control")
    assert set(masks) == set(masked)
    for name in masked:
        assert torch.equal(masks[name], logits[name] >= 0)
        assert torch.equal(logits_from(cube, 1, "control")[name], logits[name])


def test_a_network_without_masks(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """A baseline keeps its weights and has nothing masked."""
    cube = cube_for(tmp_path / "a.zarr", plan, {"w": torch.ones(2)}, [], stages=[])
    write_weights(cube, "layout0", {"seed": 1}, {"w": torch.ones(2)})
    cube.set_status({"seed": 1}, "unmasked", "done")
    assert weights_from(cube.path, 1)["w"].tolist() == [1, 1]
    with pytest.raises(CubeError, match="leaves no mask"):
        masks_from(open_cube(cube.path), 1, "unmasked")


def test_weights_per_stage(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """Where a protocol changes the weights, each stage has its own, and one must be named."""
    stages = ["unmasked", "control", "add"]
    state = {"w": torch.arange(3.0), "n": torch.tensor(0)}
    cube = cube_for(tmp_path / "a.zarr", plan, state, ["w"], stages=stages, weights_per_stage=True)
    for i, stage in enumerate(stages[:2]):
        write_weights(cube, "layout0", {"seed": 1}, {"w": torch.arange(3.0) + i, "n": torch.tensor(i)}, stage)
        cube.set_status({"seed": 1}, stage, "done")
    for i, stage in enumerate(stages[:2]):
        found = weights_from(cube.path, 1, stage)
        assert found["w"].tolist() == [i, 1 + i, 2 + i]
        assert found["n"].item() == i
    with pytest.raises(CubeError, match="keeps weights per stage; name one of: unmasked, control, add"):
        weights_from(cube.path, 1)
    with pytest.raises(CubeError, match="is pending"):
        weights_from(cube.path, 1, "add")
    with pytest.raises(CubeError, match=r"masks/layout0/bits .* has not been written"):
        masks_from(cube.path, 1, "unmasked")


def test_a_stranger_slices_tensors_by_hand(full_cube: Cube) -> None:
    """Three lines of plain xarray and numpy give the same logits and masks as our readers."""
    tree = xr.open_datatree(full_cube.path, engine="zarr")
    table = tree["masks/layout0"].sel(parameter="l.weight")
    start, count, shape = int(table["mask_offset"]), int(table["count"]), json.loads(table["shape"].item())
    place = {"seed": 2, "masks.beta": 3e-5, "stage": "add"}
    logits = tree["masks/layout0/logits"].sel(place).values[start : start + count].reshape(shape)
    bits = np.unpackbits(tree["masks/layout0/bits"].sel(place).values)[start : start + count].reshape(shape)
    np.testing.assert_array_equal(logits, logits_from(full_cube, 2, "add", beta=3e-5)["l.weight"].numpy())
    np.testing.assert_array_equal(
        bits.astype(bool), masks_from(full_cube.path, 2, "add", beta=3e-5)["l.weight"].numpy()
    )
    assert (logits >= 0).tolist() == bits.astype(bool).tolist()


def test_a_sweep_over_networks(tmp_path: Path, plan: Callable[..., Any]) -> None:
    """Each sweep point finds the masks of its own network's shape."""
    layouts = [layout_variables(f"layout{i}", {"w": ((n,), "float32")}, ["w"], ["add"]) for i, n in enumerate((3, 20))]
    labels: dict[str, Any] = {"scores": {"stage": ["unmasked", "add"]}}
    sizes: dict[str, Any] = {}
    for layout in layouts:
        labels |= layout.labels
        sizes |= layout.sizes
    variables = [v for layout in layouts for v in layout.variables]
    cube = create(
        tmp_path / "a.zarr",
        plan(run_dims={"seed": [1], "model.width": [3, 20]}, variables=variables, labels=labels, sizes=sizes),
    )
    for i, n in enumerate((3, 20)):
        run = {"seed": 1, "model.width": n}
        write_masks(cube, f"layout{i}", run, "add", {"w": torch.arange(n) - 2.0})
        cube.set_status(run, "add", "done")
    for n in (3, 20):
        assert masks_from(cube.path, 1, "add", width=n).kept() == n - 2
        assert masks_from(open_cube(cube.path), 1, "add", **{"model.width": n}).size == n


def test_questions_that_have_no_answer(cube: Cube, fill: Fill) -> None:
    """Unknown labels list the valid ones; what is not done is refused, with the reason of a failure."""
    run = {"seed": 2, "masks.beta": 3e-5}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"seed": 9, "stage": "add", "beta": 3e-5}, "has no seed 9; it has: 1, 2"),
        (
            {"seed": 2, "stage": "ad", "beta": 3e-5},
            "has no stage 'ad' (did you mean 'add'?); it has: unmasked, control, add",
        ),
        ({"seed": 2, "stage": "add", "beta": 2e-5}, "has no masks.beta 2e-05; it has: 1e-05, 3e-05"),
        ({"seed": 2, "stage": "add"}, "has several values of masks.beta; give one of: 1e-05, 3e-05"),
        ({"seed": 2, "stage": "add", "gamma": 1}, "has no sweep dimension 'gamma'; it has: masks.beta"),
        ({"seed": 2, "stage": "add", "beta": 3e-5}, "has left nothing"),
    ]
    for question, message in cases:
        with pytest.raises(CubeError, match=re.escape(message)):
            masks_from(open_cube(cube.path), **question)
    fill(cube, run)
    with pytest.raises(CubeError, match=r"leaves no mask in .*; stages that do: control, add"):
        masks_from(cube.path, 2, "unmasked", beta=3e-5)
    cube.set_status(run, "add", "failed", reason="the logits are NaN")
    for reader in (masks_from, logits_from, weights_from):
        with pytest.raises(CubeError, match=re.escape("is failed (the logits are NaN)")):
            reader(cube.path, 2, "add", beta=3e-5)
    assert masks_from(cube.path, 2, "control", beta=3e-5).size == 15
    with pytest.raises(CubeError, match="does not know its file"):
        masks_from(xr.DataTree(), 1, "add")


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        ({}, CubeError, "missing: l.weight; not expected: none"),
        ({"l.weight": torch.zeros(3, 5), "l.bias": torch.zeros(3)}, CubeError, "not expected: l.bias"),
        ({"l.weight": torch.zeros(5, 3)}, CubeError, "'l.weight' has shape (5, 3), not (3, 5)"),
        ({"l.weight": torch.full((3, 5), torch.nan)}, RunError, "the fit has diverged"),
    ],
)
def test_logits_that_do_not_fit(
    cube: Cube, run: dict[str, Any], logits: dict[str, torch.Tensor], error: type[Exception], message: str
) -> None:
    """Wrong names, wrong shapes and NaN are named; nothing is written."""
    with pytest.raises(error, match=re.escape(message)):
        write_masks(cube, "layout0", run, "add", logits)
    assert not cube.written("masks/layout0/logits", run, stage="add")


def test_weights_of_another_type(cube: Cube, run: dict[str, Any]) -> None:
    """A double network does not lose its digits in a cube laid out for floats."""
    state = {"l.weight": torch.zeros(3, 5).double(), "l.bias": torch.zeros(3), "seen": torch.tensor(1)}
    with pytest.raises(CubeError, match=r"'l.weight' is float64, but layout 'layout0' was laid out for float32"):
        write_weights(cube, "layout0", run, state)


@pytest.mark.parametrize(
    ("state", "masked", "message"),
    [
        ({"weight": ((2,), "float32")}, ["wieght"], "has no parameter 'wieght' (did you mean 'weight'?)"),
        ({"n": ((2,), torch.int64)}, ["n"], "is int64 and cannot be masked"),
        ({"c": ((2,), torch.complex64)}, [], "complex64, which a cube cannot keep"),
    ],
)
def test_layouts_that_cannot_be(state: dict[str, Any], masked: list[str], message: str) -> None:
    """What cannot be masked or kept is said before any training."""
    with pytest.raises(CubeError, match=re.escape(message)):
        layout_variables("layout0", state, masked, ["add"])
