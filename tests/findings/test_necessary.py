"""Own weights against as many others: the compiled network that is one program, brute force, and cubes of an older version."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import modhook
from modhook import Masks
from modhook.findings import Measured, judge, measured, verdict
from modhook_plugins.analyses.own_removed import OwnRemoved, OwnRemovedOptions
from modhook_tasks import known


def right(model: nn.Module, function: known.Function, out: dict[str, torch.Tensor]) -> float:
    """Return the share of all inputs that a copy answers rightly whose weights in `out` are zero."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if name in out:
                parameter[out[name]] = 0.0
    every = function.everything()
    return float(function.score(changed, every).mean())


def test_weights_of_which_each_is_needed_are_necessary() -> None:
    """`hist` has no other function and hardly a weight that it does not need: as many of all weights break it too, others do not."""
    built = known.build("hist")
    model, function = built.model, built.functions["hist"]
    needed = Masks(built.truth.minimal["hist"])

    def score(masks: Masks, stage: str) -> dict[str, dict[str, float]]:
        return {"accuracy": {"hist": right(model, function, {n: ~m for n, m in masks.items()})}}

    def run(seed: int) -> SimpleNamespace:
        task = SimpleNamespace(splits=("hist",), metrics=("accuracy",), control=False)
        return SimpleNamespace(
            stages=("hist",), masks={"hist": needed}, labels={"seed": seed}, score=score, task=task,
            coordinates=lambda _: {"parameter": list(needed)},
        )  # fmt: skip

    found = [OwnRemoved(OwnRemovedOptions(draws=2)).compute(run(seed)) for seed in (1, 2, 3)]
    removed, of_all, rest = (
        np.array([f[f"own_removed/{n}accuracy"][0, 0] for f in found]) for n in ("", "random/", "rest/")
    )
    # The same by hand, with other random numbers: what is not needed is taken out of a copy, tensor by tensor.
    generator, by_hand = torch.Generator().manual_seed(0), []
    for _ in range(3):
        out = {}
        for name, mask in needed.items():
            left = (~mask.flatten()).nonzero().flatten()
            chosen = left[torch.randperm(len(left), generator=generator)[: int(mask.sum())]]
            out[name] = torch.zeros(mask.numel(), dtype=torch.bool).index_fill_(0, chosen, True).view(mask.shape)
        by_hand.append(right(model, function, out))
    assert removed == pytest.approx(right(model, function, dict(needed)), abs=1e-9)
    assert removed.max() < 0.1
    assert of_all.max() < 0.1
    assert min(*by_hand, *rest) > 0.9
    assert [f["own_removed/rest_share"][0] for f in found] == pytest.approx([1.0] * 3, abs=0.2)
    whole = np.full(3, right(model, function, {}))
    matched = np.array([f["own_removed/rest_share"][0] for f in found])
    one = Measured("hist", unmasked=whole, masked=whole, removed=removed, random=rest, matched=matched)
    assert verdict(judge(one), "necessary") == "yes"
    before = Measured("hist", unmasked=whole, masked=whole, removed=removed, random=of_all)
    assert verdict(judge(before), "necessary") == "cannot tell"


def test_few_others_say_nothing() -> None:
    """A mask that keeps nearly everything leaves too few others to take out: such a seed does not count, and that is said."""
    full = np.ones(3)
    of = Measured("f", unmasked=full, masked=full, removed=0 * full, random=full, matched=np.array([0.1, 0.0, 0.49]))
    first = next(f for f in judge(of) if f.verdict == "necessary")
    assert (verdict(judge(of), "necessary"), first.n) == ("cannot tell", 0)
    assert "in 3 of 3 seeds not half as many others are there" in first.words
    some = Measured("f", unmasked=full, masked=full, removed=0 * full, random=full, matched=np.array([0.1, 1.0, 0.9]))
    first = next(f for f in judge(some) if f.verdict == "necessary")
    assert (first.answer, first.n, "in 1 of 3 seeds" in first.words) == ("yes", 2, True)


# -- cubes that were computed before others alone were drawn


def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def score(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Whether the largest output is the right class."""
    return (net(batch[0]).argmax(-1) == batch[1]).double()


def ask(path: Path) -> modhook.Answer:
    """Ask a small untrained network for one function."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    given, held = ({"a": [(sign * x, (sign * x[:, 0] > 0).long())]} for sign in (1, -1))
    return modhook.ask(
        model, given, loss=loss, score=score, tests=held, seeds=1, steps=4, samples=2, analyses=[], density=0.3,
        controls={"own_removed": {"draws": 2}}, out=path, progress=False, threads=1,
    )  # fmt: skip


NEW = (OwnRemoved.variables, OwnRemoved.compute)
GAINED = ("own_removed/rest/", "own_removed/rest_draws/", "own_removed/rest_share")


def test_an_older_cube_is_read_and_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is judged by the draws that it has, which is said, and where a seed lacks the others the two are not mixed; the same call
    completes it to the cube that this version makes at once."""
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as older:
        older.setattr(OwnRemoved, "variables", lambda s, t: tuple(v for v in NEW[0](s, t) if not v.name.startswith(GAINED)))
        older.setattr(
            OwnRemoved, "compute", lambda s, r: {n: v for n, v in NEW[1](s, r).items() if not n.startswith(GAINED)}
        )
        before = ask(path)
    one = measured(before.cube)[0]
    assert one.matched is None
    np.testing.assert_array_equal(one.random, before.cube["own_removed/random/accuracy"].sel(stage="a", split="a"))
    words = before.findings.query("verdict == 'necessary'")["words"].iloc[0]
    assert "random ones of all weights" in words
    after, fresh = ask(path), ask(tmp_path / "b.zarr")
    assert not after.failed
    for name in ("accuracy", "random/accuracy", "rest/accuracy", "rest_draws/accuracy", "rest_share"):
        found, expected = (x.cube[f"own_removed/{name}"].load() for x in (after, fresh))
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, expected)
    assert "that its mask does not keep" in after.findings.query("verdict == 'necessary'")["words"].iloc[0]
    mixed = after.cube.load()
    mixed["own_removed/rest"]["accuracy"][{"seed": 0}] = np.nan
    one = measured(mixed)[0]
    assert one.matched is None
    np.testing.assert_array_equal(one.random, mixed["own_removed/random/accuracy"].sel(stage="a", split="a"))
