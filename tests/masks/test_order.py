"""Cuts through the order of logits against Python's own sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modhook.errors import MaskError, UserError
from modhook.masks.order import Order

# Few values, so that many are equal.
values = st.lists(st.sampled_from([-1.5, -0.0, 0.0, 1.0, 1.0 + 2**-20, 7.0]), min_size=7, max_size=7)


def build(flat: list[float]) -> dict[str, torch.Tensor]:
    """Three parameters, one of them a number, laid end to end in `flat`."""
    a = torch.tensor(flat)
    return {"a": a[:4].view(2, 2), "b": a[4], "c": a[5:]}


@given(values, st.integers(0, 7))
def test_a_cut_keeps_the_largest_and_the_first_of_equals(flat: list[float], keep: int) -> None:
    """The kept weights are those that Python's stable sort puts first, whatever ties there are."""
    cut = Order(build(flat)).cut(keep)
    kept = set(torch.cat([cut[n].reshape(-1) for n in ("a", "b", "c")]).nonzero().flatten().tolist())
    assert kept == set(sorted(range(7), key=lambda i: -flat[i])[:keep])
    assert [tuple(cut[n].shape) for n in cut] == [(2, 2), (), (2,)]


@given(values, st.integers(0, 6))
def test_cuts_are_nested(flat: list[float], keep: int) -> None:
    """A larger cut holds every smaller one."""
    order = Order(build(flat))
    smaller, larger = order.cut(keep), order.cut(keep + 1)
    assert all(bool((larger[n] | ~smaller[n]).all()) for n in smaller)


def test_a_density_is_rounded_to_weights() -> None:
    """A share is that share of all weights to the nearest one, and at least one; numpy's numbers are numbers."""
    order = Order({"w": torch.randn(10, 100)})
    assert [order.count(density=d) for d in (0.05, 1, 1e-9, np.float32(0.25))] == [50, 1000, 1, 250]
    assert order.count(keep=np.int64(30)) == 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either density= .* or keep= .*; none is given"),
        ({"density": 0.5, "keep": 3}, "not both"),
        ({"density": 0}, "density must be a finite number greater than 0 and of at most 1, not 0"),
        ({"density": 1.01}, "not 1.01"),
        ({"density": float("nan")}, "not nan"),
        ({"density": True}, "not True"),
        ({"keep": 8}, "of at least 0 and of at most 7, not 8"),
        ({"keep": -1}, "not -1"),
        ({"keep": 2.0}, "not 2.0"),
    ],
)
def test_a_bad_size_is_one_sentence(given: dict[str, object], said: str) -> None:
    """No size, two sizes, and sizes that there are not, are refused by name."""
    with pytest.raises(UserError, match=said):
        Order(build([0.0] * 7)).count(**given)  # type: ignore[arg-type]


def test_nothing_and_nan_have_no_order() -> None:
    """Logits that cannot be ordered are refused, with the parameter's name."""
    with pytest.raises(MaskError, match="nothing to cut"):
        Order({})
    with pytest.raises(MaskError, match="'b' hold NaN"):
        Order({"a": torch.zeros(2), "b": torch.tensor([float("nan")])})


def test_sizes_are_spread_over_all_scales() -> None:
    """The sizes of a curve go from one weight to all, each about the same factor larger."""
    sizes = Order({"w": torch.zeros(10_000)}).sizes(5)
    assert sizes == [1, 10, 100, 1000, 10_000]
