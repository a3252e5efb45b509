"""Parts and overlaps of several masks, partial algebra: against Python's own sets, and chance against all masks there are."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modhook import Masks, iomin, iou, overlaps, parts

SHAPES = {"enc.a": (2, 3), "enc.b": (4,), "dec.c": (1, 2), "dec.d": ()}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
KEYS = [(name, i) for name, size in SIZES.items() for i in range(size)]
Place = tuple[str, int]


def build(kept: set[Place], names: tuple[str, ...] = tuple(SHAPES)) -> Masks:
    """Masks over some parameters that keep these weights."""
    flat = {n: torch.tensor([(n, i) in kept for i in range(SIZES[n])], dtype=torch.bool) for n in names}
    return Masks({n: m.reshape(SHAPES[n]) for n, m in flat.items()})


def weights(masks: Masks) -> set[Place]:
    """The places of the kept weights."""
    return {(n, i) for n, m in masks.items() for i in m.reshape(-1).nonzero().flatten().tolist()}


kept = st.sets(st.sampled_from(KEYS))
several = st.lists(kept, min_size=1, max_size=4)
some_names = st.sets(st.sampled_from(list(SHAPES)), min_size=1).map(lambda s: tuple(n for n in SHAPES if n in s))


def same(found: float, part: int, whole: int) -> bool:
    """Whether a ratio is part / whole, or NaN where the whole is 0."""
    return found == part / whole if whole else math.isnan(found)


@given(several)
@settings(max_examples=40)
def test_parts_are_set_algebra(sets: list[set[Place]]) -> None:
    """Exclusive and shared parts of every subset, in total and per tensor, are those of Python's sets; exclusive ones partition."""
    functions = {f"f{i}": build(s) for i, s in enumerate(sets)}
    found = parts(functions)
    assert found.sizes["subset"] == 2 ** len(sets) - 1
    for i, members in enumerate(found["member"].values):
        inside = [s for s, m in zip(sets, members, strict=True) if m]
        outside = [s for s, m in zip(sets, members, strict=True) if not m]
        shared = set.intersection(*inside)
        exclusive = shared - set().union(*outside)
        counts = [found[name].values[i].tolist() for name in ("shared", "exclusive", "degree")]
        assert counts == [len(shared), len(exclusive), len(inside)]
        for what, these in (("parameter_shared", shared), ("parameter_exclusive", exclusive)):
            assert found[what].values[i].tolist() == [sum(n == name for n, _ in these) for name in SHAPES]
    assert int(found["exclusive"].sum()) == len(set().union(*sets))


@given(several)
@settings(max_examples=20)
def test_expected_parts_are_those_of_each_weight(sets: list[set[Place]]) -> None:
    """The expected parts are sums over weights of the chance that the right functions, and no other, keep each."""
    found = parts({f"f{i}": build(s) for i, s in enumerate(sets)})
    density = [{n: sum(k == n for k, _ in s) / SIZES[n] for n in SHAPES} for s in sets]
    for subset in found["subset"].values:
        row, shared, exclusive = found.sel(subset=subset), 0.0, 0.0
        for name, _ in KEYS:
            inside = math.prod(d[name] for d, m in zip(density, row["member"].values, strict=True) if m)
            outside = math.prod(1 - d[name] for d, m in zip(density, row["member"].values, strict=True) if not m)
            shared, exclusive = shared + inside, exclusive + inside * outside
        assert float(row["shared_chance"]) == pytest.approx(shared, abs=1e-9)
        assert float(row["exclusive_chance"]) == pytest.approx(exclusive, abs=1e-9)


def test_chance_is_the_mean_over_all_masks() -> None:
    """Over every triple of masks of these sizes the mean parts and the mean IoU are what is called chance."""
    tensors, counts = {"v": 4, "w": 3}, {"a": {"v": 2, "w": 1}, "b": {"v": 1, "w": 2}, "c": {"v": 3, "w": 0}}

    def all_masks(function: str) -> list[Masks]:
        each = [list(itertools.combinations(range(n), counts[function][t])) for t, n in tensors.items()]
        made = []
        for choice in itertools.product(*each):
            flat = {t: torch.zeros(n, dtype=torch.bool) for t, n in tensors.items()}
            for t, places in zip(tensors, choice, strict=True):
                flat[t][list(places)] = True
            made.append(Masks(flat))
        return made

    every = {
        f: [{(t, i) for t in tensors for i in m[t].nonzero().flatten().tolist()} for m in all_masks(f)] for f in counts
    }
    one = {f: all_masks(f)[0] for f in counts}
    found, pairs = parts(one), overlaps(one)
    triples = list(itertools.product(every["a"], every["b"], every["c"]))
    only_a = Fraction(sum(len(a - b - c) for a, b, c in triples), len(triples))
    a_and_b = Fraction(sum(len(a & b) for a, b, _ in triples), len(triples))
    a_b_not_c = Fraction(sum(len((a & b) - c) for a, b, c in triples), len(triples))
    assert float(found["exclusive_chance"].sel(subset="a")) == pytest.approx(float(only_a))
    assert float(found["shared_chance"].sel(subset="a & b")) == pytest.approx(float(a_and_b))
    assert float(found["exclusive_chance"].sel(subset="a & b")) == pytest.approx(float(a_b_not_c))
    mean = sum(Fraction(len(a & b), len(a | b)) for a in every["a"] for b in every["b"])
    mean /= len(every["a"]) * len(every["b"])
    assert float(pairs["iou_chance"].sel(function="a", other="b")) == pytest.approx(float(mean))
    smallest = sum(Fraction(len(a & b), min(len(a), len(b))) for a in every["a"] for b in every["b"])
    smallest /= len(every["a"]) * len(every["b"])
    assert float(pairs["iomin_chance"].sel(function="b", other="a")) == pytest.approx(float(smallest))
    assert np.isnan(np.diag(pairs["iou_chance"].values)).all(), "a mask is not independent of itself"


@given(several)
@settings(max_examples=20)
def test_overlaps_are_those_of_every_two(sets: list[set[Place]]) -> None:
    """IoU, IoMin and intersections of every two, in total and per tensor, are those of Python's sets."""
    found = overlaps({f"f{i}": build(s) for i, s in enumerate(sets)})
    for (i, a), (j, b) in itertools.product(enumerate(sets), repeat=2):
        pair = found.sel(function=f"f{i}", other=f"f{j}")
        assert int(pair["intersection"]) == len(a & b)
        assert same(float(pair["iou"]), len(a & b), len(a | b))
        assert same(float(pair["iomin"]), len(a & b), min(len(a), len(b)))
        for name in SHAPES:
            x, y = ({w for w in s if w[0] == name} for s in (a, b))
            assert int(pair["parameter_intersection"].sel(parameter=name)) == len(x & y)
            assert same(float(pair["parameter_iou"].sel(parameter=name)), len(x & y), len(x | y))


@given(kept, kept, some_names, some_names)
@settings(max_examples=40)
def test_algebra_on_common_parameters(
    a: set[Place], b: set[Place], left: tuple[str, ...], right: tuple[str, ...]
) -> None:
    """IoU, IoMin, parts and overlaps on common parameters are those of the sets within these; none in common is an error."""
    one, two = build(a, left), build(b, right)
    common = [n for n in left if n in right]
    x, y = ({w for w in s if w[0] in common} for s in (a, b))
    if not common:
        with pytest.raises(ValueError, match="no parameter in common"):
            iou(one, two, on="common")
        with pytest.raises(ValueError, match="no parameter in common"):
            parts({"one": one, "two": two}, on="common")
        return
    assert same(iou(one, two, on="common"), len(x & y), len(x | y))
    assert same(iomin(one, two, on="common"), len(x & y), min(len(x), len(y)))
    found = parts({"one": one, "two": two}, on="common")
    assert found["parameter"].values.tolist() == common
    assert found["exclusive"].sel(subset=["one", "two", "one & two"]).values.tolist() == [
        len(x - y),
        len(y - x),
        len(x & y),
    ]
    assert same(float(overlaps({"one": one, "two": two}, on="common")["iou"][0, 1]), len(x & y), len(x | y))
    if set(left) != set(right):
        with pytest.raises(ValueError, match="cover different parameters"):
            parts({"one": one, "two": two})


@given(kept, kept)
@settings(max_examples=40)
def test_selection_commutes_with_algebra(a: set[Place], b: set[Place]) -> None:
    """Selecting and combining commute, and the parts that two patterns select are the whole."""
    one, two = build(a), build(b)
    for operation in (Masks.__and__, Masks.__or__, Masks.__sub__, Masks.__xor__):
        assert operation(one, two).select("enc.*") == operation(one.select("enc.*"), two.select("enc.*"))
    assert (~one).select("dec.*") == ~one.select("dec.*")
    assert weights(one.select("enc.*")) | weights(one.select("*", exclude="enc.*")) == a
    assert weights(one.select(["enc.a", "dec.*"])) == {w for w in a if w[0] != "enc.b"}
