"""What verdicts are made of, read from a real cube and computed anew beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from two_functions import asked, batches, loss, network, score

import modhook
from modhook.findings import measured


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> modhook.Answer:
    """Two functions of an untrained network, three seeds."""
    out = tmp_path_factory.mktemp("findings") / "f.zarr"
    return asked(network(), out, seeds=3, steps=20, samples=4, within="threshold", analyses=["own_removed"], controls={})


def test_scores_removal_and_movement_are_the_cubes(answer: modhook.Answer) -> None:
    """Score by score from `scores` and `own_removed`; the density's change from the history's rows."""
    a, b = measured(answer.cube)
    scores, removed = answer.cube["scores/accuracy"], answer.cube["own_removed"]
    np.testing.assert_array_equal(a.unmasked, scores.sel(stage="unmasked", split="a"))
    np.testing.assert_array_equal(b.masked, scores.sel(stage="b", split="b"))
    np.testing.assert_array_equal(a.others["b"][0], scores.sel(stage="a", split="b"))
    np.testing.assert_array_equal(a.others["b"][1], scores.sel(stage="unmasked", split="b"))
    np.testing.assert_array_equal(a.removed, removed["accuracy"].sel(stage="a", split="a"))
    np.testing.assert_allclose(a.random, removed["rest_draws/accuracy"].sel(stage="a", split="a").mean("draw"))
    np.testing.assert_array_equal(a.matched, removed["rest_share"].sel(stage="a"))
    np.testing.assert_array_equal(a.spared["b"][0], removed["accuracy"].sel(stage="a", split="b"))
    np.testing.assert_array_equal(a.spared["b"][1], scores.sel(stage="unmasked", split="b"))
    assert list(a.spared) == ["b"]
    density = answer.cube["history/density"].sel(stage="a")
    steps = density["step"].values
    before = max(s for s in steps if s <= 0.9 * steps[-1])
    np.testing.assert_allclose(a.moved, np.abs(1 - density.sel(step=before) / density.sel(step=steps[-1])))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("c", 1), r"no function was asked for that is called 'c'; there are a, b\.$"),
        (("a", 9), r"has no seed 9; it has: 1, 2, 3\.$"),
        ("a", r"by function and seed, answer\.masks\['a', 1\], not by 'a'\.$"),
    ],
)
def test_masks_that_an_answer_does_not_have(answer: modhook.Answer, key: object, message: str) -> None:
    """One sentence, and a `KeyError`, so that `get` and `in` say so, too."""
    with pytest.raises(KeyError, match=message):
        answer.masks[key]  # type: ignore[index]
    assert answer.masks.get(key) is None  # type: ignore[call-overload]
    assert key not in answer.masks


def test_agreement_is_counted_over_pairs_of_seeds(answer: modhook.Answer) -> None:
    """Per seed the mean IoU with the two others, by counting; chance by drawing many random masks of the same sizes."""
    a, _ = measured(answer.cube)
    flat = {s: torch.cat([m.flatten() for m in answer.masks["a", s].values()]).numpy() for s in (1, 2, 3)}
    pairs = {
        p: (flat[p[0]] & flat[p[1]]).sum() / (flat[p[0]] | flat[p[1]]).sum() for p in itertools.combinations(flat, 2)
    }
    expected = [np.mean([v for p, v in pairs.items() if s in p]) for s in flat]
    np.testing.assert_allclose(a.agreement, expected)
    rng = np.random.default_rng(0)
    tensors = {s: [m.flatten().numpy() for m in answer.masks["a", s].values()] for s in (1, 2, 3)}
    drawn = []
    for _ in range(2000):
        one, two = (np.concatenate([rng.permutation(t) for t in tensors[s]]) for s in (1, 2))
        drawn.append((one & two).sum() / (one | two).sum())
    both = (a.chance[0] + a.chance[1] - a.chance[2]) if len(a.chance) == 3 else np.nan
    assert np.mean(drawn) == pytest.approx(both, abs=4 * np.std(drawn) / np.sqrt(2000) + 1e-9)


def test_answer_tells_verdicts_with_numbers(answer: modhook.Answer) -> None:
    """Every verdict stands in text, page and table, with its words; without controls `real` cannot be told."""
    assert {v["real"] for v in answer.verdicts.values()} == {"cannot tell"}
    table = answer.findings
    assert {"function", "verdict", "value", "reference", "low", "high", "n", "p", "threshold", "words"} <= set(
        table.columns
    )
    assert set(table["verdict"]) == {"sufficient", "necessary", "specific", "real", "stable", "settled"}
    text, page = repr(answer), answer._repr_html_()
    assert "\x1b" not in text
    for row in table.itertuples():
        assert row.words in text
    assert page.count("<table") == 3
    assert "<img" in page
    assert "<script" not in page


def test_what_was_said_of_the_masks_stands_in_the_answer(answer: modhook.Answer) -> None:
    """Every sentence that the cube has of a function, in text, page, table and what is judged; the kept share by counting."""
    one, said = measured(answer.cube)[0], answer.cube["history/trust"].sel(stage="a")
    lines = {str(line) for text in said.values for line in str(text).splitlines()}
    assert {f"{rule}: {sentence}" for rule, sentence, _ in one.said} == lines
    words = "\n".join(answer.findings.query("function == 'a'")["words"])
    assert lines
    assert all(line.partition(": ")[2] in words for line in lines)
    masks = [answer.masks["a", seed] for seed in answer.seeds]
    counted = [sum(int(m.sum()) for m in one.values()) / sum(m.numel() for m in one.values()) for one in masks]
    np.testing.assert_allclose(one.kept, counted)


def test_masks_that_a_score_cuts_are_not_told_to_be_cut_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of the sampler's threshold is said of masks that are cut there, and of no others; the rest is said of both."""
    for bound in ("LEAST", "WORSE", "MOVING"):
        monkeypatch.setattr(f"modhook.fit.trust.{bound}", -1e9)  # every fit breaks these rules
    model, given, held = nn.Linear(4, 2), {"a": batches(0)}, {"a": batches(0, 1)}
    nn.init.eye_(model.weight)
    rules: dict[object, set[str]] = {}
    for within in ("threshold", 0.5):
        asked = modhook.ask(
            model, given, loss=loss, score=score, tests=held, seeds=1, steps=2, within=within, analyses=[], progress=False, threads=1
        )  # fmt: skip
        rules[within] = {rule for rule, *_ in measured(asked.cube)[0].said}
    assert rules["threshold"] - rules[0.5] == {"threshold"}
    assert "moving" in rules[0.5]


def test_a_sweep_is_refused() -> None:
    """Several studies in one cube have no one verdict."""
    import xarray as xr

    status = xr.DataArray(
        np.ones((1, 2, 1)), {"seed": [1], "masks.beta": [1.0, 2.0], "stage": ["a"]}, ("seed", "masks.beta", "stage")
    )
    cube = xr.DataTree.from_dict({"runs": xr.Dataset({"status": status})})
    with pytest.raises(modhook.UserError, match=r"a sweep over masks\.beta"):
        measured(cube)
