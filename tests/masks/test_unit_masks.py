"""Masks of units: set algebra and overlap over units, the weights that they mean, and files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import modhook
from modhook import Masks
from modhook.errors import MaskError


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    """A chain with 4 and 3 hidden neurons."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()


@pytest.fixture(scope="module")
def pair(model: nn.Sequential) -> tuple[Masks, Masks]:
    """Two masks over its neurons."""
    units = modhook.units(model)
    one = {"neuron:0": torch.tensor([1, 1, 0, 0]).bool(), "neuron:2": torch.tensor([1, 0, 1]).bool()}
    two = {"neuron:0": torch.tensor([1, 0, 1, 0]).bool(), "neuron:2": torch.tensor([0, 0, 1]).bool()}
    return Masks(one, model, units=units), Masks(two, model, units=units)


def test_algebra_and_overlap_count_units(pair: tuple[Masks, Masks]) -> None:
    """Union, intersection, complement, overlap, chance and parts count units, not the weights that they have."""
    a, b = pair
    assert ((a & b).kept(), (a | b).kept(), (a - b).kept(), (~a).kept(), a.size) == (2, 5, 2, 3, 7)
    assert modhook.iou(a, b) == 2 / 5
    assert modhook.iomin(a, b) == 2 / 3
    assert a.density == 4 / 7
    assert "4 of 7 units kept" in repr(a)
    found = modhook.overlaps({"a": a, "b": b})
    # One of C(4, 2) x C(4, 2) pairs of pairs, times one of C(3, 2) x C(3, 1): the mean over all of them by hand.
    shared = {n: math.comb(2, n) * math.comb(2, 2 - n) / math.comb(4, 2) for n in range(3)}
    also = {0: 1 / 3, 1: 2 / 3}
    expected = sum(p * q * (n + m) / (7 - n - m) for n, p in shared.items() for m, q in also.items())
    assert float(found["iou_chance"].sel(function="a", other="b")) == pytest.approx(expected, rel=1e-12)
    parts = modhook.parts({"a": a, "b": b})
    assert int(parts["shared"].sum()) == 4 + 3 + 2
    frame = a.to_dataframe()
    assert frame[["parameter", "module", "kept", "total"]].values.tolist() == [
        ["neuron:0", "0", 2, 4],
        ["neuron:2", "2", 2, 3],
    ]
    assert list(a.select("2.*")) == ["neuron:2"]
    assert a.like({"neuron:0": b["neuron:0"]}).units is not None


def test_weights_of_units(model: nn.Sequential, pair: tuple[Masks, Masks]) -> None:
    """A weight is kept if all of its units are: of rows and columns the product, of biases the row."""
    a, _ = pair
    weights, one, two = a.weights(model), a["neuron:0"], a["neuron:2"]
    expected = {
        "0.weight": one[:, None].expand(4, 2), "0.bias": one, "2.weight": two[:, None] & one, "2.bias": two, "4.weight": two.expand(2, 3),
    }  # fmt: skip
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[n], m) for n, m in expected.items())
    assert weights.units is None
    assert weights.fingerprint == a.fingerprint
    x = torch.randn(3, 2).double()
    with a.applied_to(model):
        masked = model(x)
    assert torch.equal(masked, weights.materialize(model)(x))
    assert torch.equal(masked, a.materialize(model)(x))
    assert torch.equal(masked, modhook.export.prune(a, a.like({}).materialize(model))(x))


def test_units_beside_weights(model: nn.Sequential, pair: tuple[Masks, Masks]) -> None:
    """Masks of units and masks of weights are not compared as they are, and the message says how."""
    a, _ = pair
    for compare in (
        lambda: a & a.weights(model),
        lambda: modhook.iou(a, a.weights(model), on="common"),
        lambda: modhook.parts({"a": a, "b": a.weights(model)}),
    ):
        with pytest.raises(
            MaskError, match=r"one of the masks is over units, the other over weights; compare masks\.weights\(model\)"
        ):
            compare()
    assert a != a.weights(model)


def test_files(model: nn.Sequential, pair: tuple[Masks, Masks], tmp_path: Path) -> None:
    """Masks of units come back from a file with their units; another network and a damaged file are refused."""
    a, _ = pair
    a.save(tmp_path / "a.safetensors")
    again = Masks.load(tmp_path / "a.safetensors", model)
    assert again == a
    assert all(torch.equal(m, a.weights(model)[n]) for n, m in again.weights(model).items())
    assert Masks.load(tmp_path / "a.safetensors").weights(model) == a.weights(model)
    other = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5))
    with pytest.raises(
        MaskError,
        match=r"the units 'neuron:0'.* own weights of '0\.weight'|'2\.weight', which has the shape|other network",
    ):
        Masks.load(tmp_path / "a.safetensors", other)
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(data.replace(b"neuron:2", b"neuron:3"))
    with pytest.raises(MaskError, match="damaged"):
        Masks.load(tmp_path / "b.safetensors")


def test_masks_that_do_not_fit(model: nn.Sequential) -> None:
    """A mask of another number of units, and units of another network, are named."""
    units = modhook.units(model)
    with pytest.raises(MaskError, match=r"the mask of 'neuron:0' has shape \(3,\), but there are 4 units"):
        Masks({"neuron:0": torch.ones(3, dtype=torch.bool)}, model, units=units)
    with pytest.raises(MaskError, match=r"own weights of '2\.weight', which has the shape"):
        Masks(
            {"neuron:0": torch.ones(4, dtype=torch.bool)},
            nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(5, 3)),
            units=units,
        )
    with pytest.raises(MaskError, match="the mask 'neuron:0' has no parameter"):
        Masks({"neuron:0": torch.ones(4, dtype=torch.bool)}, model)
