"""Random, largest and own weights: the masks are made again by hand, and scored with plain matrix products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from modhook import Masks
from modhook.cube import masks_from, open_cube, weights_from
from modhook_plugins.analyses.own_removed import OwnRemoved
from modhook_plugins.analyses.random_weights import drawn

Numbers = Callable[[dict[str, Tensor]], list[tuple[int, int, int, int]]]
STAGES = ("control", "add", "mul")


def accuracy(numbers: list[tuple[int, int, int, int]]) -> list[float]:
    """Share of right results of all problems, of the sums and of the products."""
    right = [(op, n == ((a + b) % 100 if op == 0 else a * b % 100)) for a, b, op, n in numbers]
    return [
        sum(ok for _, ok in right) / len(right),
        *(sum(ok for o, ok in right if o == op) / sum(o == op for o, _ in right) for op in (0, 1)),
    ]


def without(weights: dict[str, Tensor], out: dict[str, set[int]]) -> dict[str, Tensor]:
    """Set single weights to zero, one after the other, in a copy."""
    changed = {n: w.clone() for n, w in weights.items()}
    for name, places in out.items():
        flat = changed[name].view(-1)
        for place in places:
            flat[place] = 0.0
    return changed


def kept(masks: Masks) -> dict[str, set[int]]:
    """Return which weights masks keep, as sets of places."""
    return {n: set(np.flatnonzero(m.numpy()).tolist()) for n, m in masks.items()}


def test_own_weights_are_taken_out(addmul_cube: Path, written_numbers: Numbers) -> None:
    """Every split's score without what one function keeps alone equals that of weights zeroed by hand; counts are right."""
    with open_cube(addmul_cube) as cube:
        weights = weights_from(cube, seed=1)
        found = cube["own_removed"].to_dataset().sel(seed=1).load()
        draws = cube["own_removed/draws"].to_dataset().sel(seed=1).load()
        mean = cube["own_removed/random"].to_dataset().sel(seed=1).load()
        rest = cube["own_removed/rest"].to_dataset().sel(seed=1).load()
        others_out = cube["own_removed/rest_draws"].to_dataset().sel(seed=1).load()
        masks = {s: masks_from(cube, 1, s) for s in STAGES}
    for stage, other in (("add", "mul"), ("mul", "add")):
        mine, others = kept(masks[stage]), kept(masks[other])
        own = {n: mine[n] - others[n] for n in mine}
        assert sum(map(len, own.values())) > 20
        assert found["own"].sel(stage=stage).to_series().to_dict() == {n: len(places) for n, places in own.items()}
        assert float(found["share"].sel(stage=stage)) == pytest.approx(sum(map(len, own.values())) / masks[stage].size)
        expected = accuracy(written_numbers(without(weights, own)))
        assert found["accuracy"].sel(stage=stage).values == pytest.approx(expected, abs=1e-3)
        apart = Masks({n: torch.tensor([i in own[n] for i in range(m.numel())]).view(m.shape) for n, m in masks[stage].items()})
        for d in (1, 2):
            out = kept(drawn(apart, "own removed", 1, stage, d))
            assert {n: len(p) for n, p in out.items()} == {n: len(p) for n, p in own.items()}
            expected = accuracy(written_numbers(without(weights, out)))
            assert draws["accuracy"].sel(stage=stage, draw=d).values == pytest.approx(expected, abs=1e-3)
            out = kept(drawn(apart, "rest removed", 1, stage, d, spared=masks[stage]))
            left = {n: masks[stage][n].numel() - len(mine[n]) for n in mine}
            assert {n: len(p) for n, p in out.items()} == {n: min(len(own[n]), left[n]) for n in own}
            assert not any(out[n] & mine[n] for n in mine)
            expected = accuracy(written_numbers(without(weights, out)))
            assert others_out["accuracy"].sel(stage=stage, draw=d).values == pytest.approx(expected, abs=1e-3)
            share = sum(map(len, out.values())) / sum(map(len, own.values()))
            assert float(found["rest_share"].sel(stage=stage)) == pytest.approx(share)
    assert rest["accuracy"].values == pytest.approx(others_out["accuracy"].mean("draw").values, nan_ok=True)
    assert mean["accuracy"].values == pytest.approx(draws["accuracy"].mean("draw").values, nan_ok=True)
    control = found.sel(stage="control")
    assert all(bool(control[name].isnull().all()) for name in control.data_vars)


def test_random_masks_have_the_mask_s_density_in_every_tensor(addmul_cube: Path, written_numbers: Numbers) -> None:
    """As many weights of each tensor, another draw each time; the score is that of all other weights zeroed by hand."""
    with open_cube(addmul_cube) as cube:
        weights = weights_from(cube, seed=1)
        draws = cube["random/draws"].to_dataset().sel(seed=1).load()
        mean = cube["random"].to_dataset().sel(seed=1).load()
        masks = {s: masks_from(cube, 1, s) for s in STAGES}
    seen = set()
    for stage in STAGES:
        for d in (1, 2, 3):
            random = drawn(masks[stage], "random", 1, stage, d)
            assert random.kept(per_tensor=True) == masks[stage].kept(per_tensor=True)
            seen.add(tuple(sorted((n, tuple(sorted(p))) for n, p in kept(random).items())))
            expected = accuracy(written_numbers(without(weights, kept(~random))))
            assert draws["accuracy"].sel(stage=stage, draw=d).values == pytest.approx(expected, abs=1e-3)
    assert len(seen) == 9
    assert mean["accuracy"].values == pytest.approx(draws["accuracy"].mean("draw").values)


def test_every_weight_is_drawn_as_often() -> None:
    """Over many draws each place is kept as often as its tensor's density says; tensors are drawn independently."""
    size = Masks({"a": torch.tensor([[True, False, False], [True, False, False]]), "b": torch.tensor([True, False])})
    times, both = np.zeros(6), 0
    for n in range(3000):
        one = drawn(size, "test", n)
        times += one["a"].flatten().numpy()
        both += bool(one["a"][0, 0] & one["b"][0])
    assert np.abs(times / 3000 - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 3000)
    assert abs(both / 3000 - 1 / 6) < 4 * np.sqrt(5 / 36 / 3000)


def test_what_is_spared_is_never_drawn() -> None:
    """Of the weights that are left each is drawn as often; where fewer are left than are to be drawn, all of them are."""
    size = Masks({"a": torch.tensor([True, True, False, False, False, False]), "b": torch.tensor([True, True, True, False])})
    spared = Masks({"a": torch.tensor([True, True, False, False, False, True]), "b": torch.tensor([True, True, True, False])})
    times = np.zeros(6)
    for n in range(2000):
        one = drawn(size, "test", n, spared=spared)
        times += one["a"].numpy()
        assert one["b"].tolist() == [False, False, False, True]
    assert times[[0, 1, 5]].tolist() == [0, 0, 0]
    assert np.abs(times[2:5] / 2000 - 2 / 3).max() < 4 * np.sqrt(2 / 9 / 2000)


def test_the_largest_weights(addmul_cube: Path, written_numbers: Numbers) -> None:
    """The score is that of the largest weights of all tensors together, as many as the mask keeps; the IoU is counted."""
    with open_cube(addmul_cube) as cube:
        weights = weights_from(cube, seed=1)
        found = cube["magnitude"].to_dataset().sel(seed=1).load()
        masks = {s: masks_from(cube, 1, s) for s in STAGES}
    for stage in STAGES:
        own = kept(masks[stage])
        ranked = sorted(((abs(float(x)), n, i) for n in own for i, x in enumerate(weights[n].view(-1))), reverse=True)
        large = {(n, i) for _, n, i in ranked[: masks[stage].kept()]}
        out = {n: {i for i in range(weights[n].numel()) if (n, i) not in large} for n in own}
        expected = accuracy(written_numbers(without(weights, out)))
        assert found["accuracy"].sel(stage=stage).values == pytest.approx(expected, abs=1e-3)
        mine = {(n, i) for n, places in own.items() for i in places}
        assert float(found["iou"].sel(stage=stage)) == pytest.approx(len(mine & large) / len(mine | large))


def test_a_function_that_is_alone_owns_all_that_it_keeps() -> None:
    """Without a control and without another function, what is taken out is the whole mask; copied weights are never owned."""
    def run(masks: dict[str, Masks]) -> tuple[dict[str, object], list[Masks]]:
        scored: list[Masks] = []

        def score(given: Masks, stage: str) -> dict[str, dict[str, float]]:
            scored.append(given)
            return {"accuracy": {"all": given.density}}

        made = SimpleNamespace(
            stages=tuple(masks), masks=masks, labels={"seed": 1}, score=score,
            task=SimpleNamespace(splits=("all",), metrics=("accuracy",), control=False),
            coordinates=lambda _: {"parameter": ["a"]},
        )  # fmt: skip
        return OwnRemoved().compute(made), scored

    one = Masks({"a": torch.tensor([True, False, True, False])})
    found, scored = run({"f": one})
    assert scored[0] == ~one
    assert found["own_removed/accuracy"].tolist() == [[0.5]]
    found, scored = run({"f": one, "g": one})
    assert found["own_removed/own"].tolist() == [[0], [0]]
    assert scored[0].density == 1.0
