"""Set algebra of masks against Python's own sets."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from modhook import Masks, iomin, iou

SHAPES = {"a": (2, 3), "b": (4,), "c": ()}
SIZE = sum(math.prod(s) for s in SHAPES.values())


def build(bits: list[bool]) -> Masks:
    """Masks over SHAPES from a flat list."""
    masks, rest = {}, list(bits)
    for name, shape in SHAPES.items():
        count = math.prod(shape)
        masks[name] = torch.tensor(rest[:count], dtype=torch.bool).reshape(shape)
        rest = rest[count:]
    return Masks(masks)


def as_set(masks: Masks) -> set[int]:
    """Positions of the kept weights."""
    flat = torch.cat([masks[n].reshape(-1) for n in SHAPES])
    return set(flat.nonzero().flatten().tolist())


bits = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE)


@given(bits, bits)
def test_algebra_is_set_algebra(x: list[bool], y: list[bool]) -> None:
    """Every operation and ratio equals the one on Python sets."""
    a, b = build(x), build(y)
    sa, sb, everything = as_set(a), as_set(b), set(range(SIZE))
    assert as_set(~a) == everything - sa
    assert as_set(a | b) == sa | sb
    assert as_set(a & b) == sa & sb
    assert as_set(a - b) == sa - sb
    assert as_set(a ^ b) == sa ^ sb
    assert a.kept() == len(sa)
    assert a.density == len(sa) / SIZE
    expected = len(sa & sb) / len(sa | sb) if sa | sb else math.nan
    assert iou(a, b) == expected or (math.isnan(expected) and math.isnan(iou(a, b)))
    small = min(len(sa), len(sb))
    expected = len(sa & sb) / small if small else math.nan
    assert iomin(a, b) == expected or (math.isnan(expected) and math.isnan(iomin(a, b)))
    assert (a == b) == (sa == sb)
    assert hash(a) == hash(build(x))


@given(bits, bits)
def test_laws(x: list[bool], y: list[bool]) -> None:
    """De Morgan, double complement, and difference as intersection with the complement."""
    a, b = build(x), build(y)
    assert ~(a | b) == ~a & ~b
    assert ~~a == a
    assert a - b == a & ~b
