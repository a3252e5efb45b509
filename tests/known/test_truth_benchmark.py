"""The benchmark of known answers: its scores against plain loops, its cache, and docs/truth.md against docs/truth.json."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

import modhook
from modhook_tasks import known

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/truth"))

import densities  # noqa: E402 - the benchmark is a program beside the tests, not a package
import fits  # noqa: E402
import methods  # noqa: E402
import page  # noqa: E402
import run  # noqa: E402
import scores  # noqa: E402
import variants  # noqa: E402

FOUND = json.loads((ROOT / "docs/truth.json").read_text(encoding="utf-8"))


def test_the_area_counts_pairs() -> None:
    """Area under the ROC curve: of every pair of a positive and another weight, looked at one by one, ties half."""
    generator = torch.Generator().manual_seed(0)
    ranking = {"a": torch.randint(0, 5, (4, 3), generator=generator).float(), "b": torch.randn(7, generator=generator)}
    positive = {n: torch.rand(v.shape, generator=generator) < 0.4 for n, v in ranking.items()}
    among = {n: torch.rand(v.shape, generator=generator) < 0.8 for n, v in ranking.items()}
    for some in (None, among):
        rows = [
            (float(v.flatten()[i]), bool(positive[n].flatten()[i]))
            for n, v in ranking.items()
            for i in range(v.numel())
            if some is None or some[n].flatten()[i]
        ]
        pairs = [(a > b) + (a == b) / 2 for a, yes in rows if yes for b, other in rows if not other]
        assert scores.area(ranking, positive, some) == pytest.approx(sum(pairs) / len(pairs))
    assert math.isnan(scores.area(ranking, {n: torch.zeros_like(m) for n, m in positive.items()}))


def test_a_mask_is_scored_weight_by_weight() -> None:
    """Size, precision, recall and foreign share of a random mask, by counting; of the small mask itself, all is as it must be."""
    built = known.build("frac_prevs+hist")
    wanted = built.functions["hist"]
    assert built.truth.owner is not None
    assert built.truth.necessary is not None
    assert built.truth.minimal is not None
    generator = torch.Generator().manual_seed(1)
    necessary = built.truth.necessary["hist"]
    mask = modhook.Masks({n: torch.rand(m.shape, generator=generator) < 0.3 for n, m in necessary.items()}, built.model)
    kept = used = own = foreign = hit = idle = others = 0
    for name in necessary:
        weight, owner = built.model.get_parameter(name), built.truth.owner[name]
        for place in np.ndindex(*owner.shape):
            is_kept, is_used, number = bool(mask[name][place]), bool(weight[place] != 0), int(owner[place])
            kept += is_kept
            idle += is_kept and not is_used
            used += is_kept and is_used
            own += is_kept and is_used and number == wanted.number
            foreign += is_kept and is_used and number not in (0, wanted.number)
            others += number not in (0, wanted.number)
            hit += is_kept and bool(necessary[name][place])
    found = scores.of_mask(built, wanted, mask)
    assert found["kept"] == kept
    assert found["idle"] == pytest.approx(idle / kept)
    assert found["precision"] == pytest.approx(own / used)
    assert found["foreign"] == pytest.approx(foreign / used)
    assert found["of_foreign"] == pytest.approx(foreign / others)
    assert found["recall"] == pytest.approx(hit / 57)
    assert found["of_necessary"] == pytest.approx(kept / 57)
    small = scores.of_mask(built, wanted, modhook.Masks(built.truth.minimal["hist"], built.model))
    assert (small["precision"], small["foreign"], small["of_minimal"], small["kept"]) == (1, 0, 1, 55)


def test_what_chooses_a_cut_does_not_score_it() -> None:
    """The items that choose and those that score are the two halves of the held-out items, and no training item is in either."""
    function = known.build("sort").functions["sort"]
    parts = [scores.choosing(function), scores.unseen(function), function.train]
    rows = [{tuple(row) for row in part["inputs"].tolist()} for part in parts]
    assert [len(r) for r in rows] == [256, 256, 512]
    assert not rows[0] & rows[1]
    assert not (rows[0] | rows[1]) & rows[2]


@pytest.mark.parametrize("method", ["magnitude", "snip", "hard_concrete", "top_k"])
def test_a_fit_is_measured(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of method gives the numbers of the table, twice the same; its cuts keep what they promise on the choosing items."""
    chosen = methods.METHODS[method]
    short = attrs.evolve(chosen, setting={**chosen.setting, "steps": 2})
    found = [fits.measured("welded_fnn", "largest", short, seed=1) for _ in range(2)]
    for one in found:
        one.pop("seconds")
    assert page.plain(found[0]) == page.plain(found[1])
    assert ("threshold" in found[0]["masks"]) == (method in ("hard_concrete", "top_k"))
    assert ("first" in found[0]["masks"]) == (method == "hard_concrete")
    assert found[0]["masks"]["cut"]["kept"] <= found[0]["masks"].get("first", {"kept": 1376})["kept"]
    assert found[0]["masks"]["cut"]["accuracy"] > 0.95


def test_antithetic_samples_are_pairs() -> None:
    """A weight that is kept for u above q is kept in the other half for 1 - u above q, by the numbers of the first half alone."""
    logits, weight = torch.linspace(-3, 3, 40, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    sources = [torch.Generator().manual_seed(k) for k in range(6)]
    drawn = variants.AntitheticGumbel().apply(weight, logits, sources)
    for k in range(3):
        u = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        q = 1 / (1 + logits.exp())
        assert torch.equal(drawn[k] != 0, u > q)
        assert torch.equal(drawn[k + 3] != 0, 1 - u > q)


def test_the_late_mean_is_over_the_last_quarter() -> None:
    """The ranking is by the mean of the logits after each of the last steps, and the masks are where that is not negative."""
    network = known.build("welded_fnn")
    function, seen = network.functions["largest"], []
    late = variants.LateMean(8)

    def watched(step: int, trainer: Any) -> None:
        seen.append({n: v.detach().clone() for n, v in trainer.logits.items()})
        late(step, trainer)

    fit = modhook.fit_masks(
        network.model, function.batches(seed=0, size=16), function.loss, steps=8, lr=1.0, progress=False, callback=watched
    )
    found = late.of(fit)
    for name, mean in found.logits.items():
        torch.testing.assert_close(mean, (seen[6][name] + seen[7][name]) / 2)
        assert torch.equal(found.masks[name], mean >= 0)


def test_a_density_is_asked_for() -> None:
    """Masks have whole weights of it, the samples nearly it, and a ranking without training draws none."""
    found = densities.measured("gumbel", "welded_fnn", 0.1)
    assert found["wanted"] == pytest.approx(137.6)
    assert found["kept"] == 138
    assert found["held"] == pytest.approx(0.1, rel=0.02)
    assert math.isnan(densities.measured("integrated_gradients", "welded_fnn", 0.1)["held"])
    (row,) = page.summarised([], [{**found, "held": 0.103}])["densities"]
    assert (row["masks"], row["held"]) == (pytest.approx(0.4 / 137.6, rel=1e-3), pytest.approx(0.03))


def test_a_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fits that are in the file are not done again, one of another setting or half a line is; a budget of nothing does nothing."""
    cache = tmp_path / "cache.jsonl"
    begin = ["run.py", "--methods", "magnitude", "--networks", "welded_fnn", "--seeds", "0", "--no-page", "--no-densities"]
    begin += ["--cache", str(cache)]

    def go(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*begin, *more])
        run.main()
        return capsys.readouterr().out.splitlines()[0]

    assert go("--budget", "-1") == "2 fits are missing"
    assert not cache.exists()
    assert go() == "2 fits are missing"
    assert go() == "0 fits are missing"
    lines = cache.read_text().splitlines()
    cache.write_text(lines[0] + "\n" + lines[1][:40])
    assert go() == "1 fits are missing"
    other = methods.Method(methods.METHODS["magnitude"].sampler, {"steps": 9})
    monkeypatch.setitem(methods.METHODS, "magnitude", other)
    assert go() == "2 fits are missing"


def test_a_summary_counts_what_reaches_the_goals() -> None:
    """Three fits of which one is too large and one is wrong: least, mean and most, and how many reach what."""

    def fit(seed: int, accuracy: float, size: float) -> dict[str, Any]:
        mask = {"accuracy": accuracy, "foreign": None, "of_foreign": None, "of_necessary": size, "complement": 0.0, "kept": size * 30}
        return {
            "method": "snip", "network": "frac_prevs", "function": "frac_prevs", "seed": seed, "seconds": 1.0 + seed, "weights": 99,
            "unmasked": 1.0, "area_necessary": 0.5, "area_owner": None, "masks": {page.CUT: mask},
        }  # fmt: skip

    (row,) = page.summarised([fit(0, 1.0, 1.0), fit(1, 0.98, 1.2), fit(2, 1.0, 1.5)])["rows"]
    mask = row["masks"][page.CUT]
    assert mask["reached"] == {"accuracy": 2, "foreign": 3, "size": 2, "all": 1}
    assert mask["of_necessary"] == pytest.approx([1.0, 3.7 / 3, 1.5], rel=1e-4)
    assert (row["seeds"], row["seconds"], row["area_owner"]) == (3, 2.0, None)


def test_the_page_is_what_its_numbers_say() -> None:
    """docs/truth.md is made from docs/truth.json, and the settings in it are those of the methods."""
    assert (ROOT / "docs/truth.md").read_text(encoding="utf-8") == page.page(FOUND)
    assert FOUND["settings"] == {name: method.written for name, method in methods.METHODS.items()}
    for row in FOUND["rows"]:
        assert row["network"] in known.networks(controls=True)
