"""A function of `ask` that fails: the others are computed, what lacks it says why, and the same call tries again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ask_setting import Setting, batches, loss

import modhook
from modhook import ModhookWarning

BOTH = {"small": batches(0), "large": batches(1)}
NAN = float("nan")


class Sick:
    """A loss that is not finite where something outside is broken, which nobody sees from its source."""

    def __call__(self, net: Any, batch: Any) -> Any:
        """Return the loss, or nothing finite."""
        return factor() * loss(net, batch)


def factor() -> float:
    """Return 1: tests break it."""
    return 1.0


def test_the_others_are_computed_and_the_same_call_tries_again(
    setting: Setting, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The first function fails in both seeds: the second one has masks and controls as if it were asked for with a healthy one."""
    broken = pytest.MonkeyPatch()
    request.addfinalizer(broken.undo)
    broken.setitem(globals(), "factor", lambda: NAN)

    def ask(out: str) -> modhook.Answer:
        arguments = setting.arguments(loss={"small": Sick(), "large": loss}, steps=4, controls={"shuffled": True})
        return modhook.ask(setting.model, BOTH, out=tmp_path / out, **arguments)

    with pytest.warns(ModhookWarning, match=r"seed=1, small: .*[^.]; seed=2, small: .*[^.]\.$"):
        answer = ask("a.zarr")
    assert [line.partition(":")[0] for line in answer.failed] == ["seed=1, small", "seed=2, small"]
    assert set(answer.masks) == {("large", 1), ("large", 2)}
    assert answer.scores.sel(stage="large").notnull().all()
    assert answer.cube["controls/of_density"].sel(stage="large (shuffled)").notnull().all()
    reason = answer.failed[0].partition(": ")[2].rstrip(".")
    words = answer.findings.set_index(["function", "verdict"])["words"]
    assert reason in words["small", "sufficient"]
    assert "--" not in repr(answer)
    with pytest.warns(ModhookWarning, match="seed=1, small: "):
        assert ask("a.zarr").failed == answer.failed
    broken.undo()
    mended, healthy = ask("a.zarr"), ask("b.zarr")
    assert not mended.failed
    assert set(mended.masks) == set(healthy.masks)
    for key, masks in mended.masks.items():
        assert masks == healthy.masks[key]
    assert mended.cube["inverse"].equals(healthy.cube["inverse"])
    arguments = setting.arguments(loss={"small": Sick(), "large": loss}, steps=4, controls={"shuffled": True}, seeds=1)
    fewer = modhook.ask(setting.model, BOTH, out=tmp_path / "b.zarr", **arguments)  # of a cube of two seeds
    assert fewer.seeds == (1,)
    assert set(fewer.masks) == {("small", 1), ("large", 1)}
    assert fewer.scores.sizes["seed"] == 1
    assert fewer.findings["n"].max() == 1
