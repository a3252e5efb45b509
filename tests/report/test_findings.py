"""The headlines say what the cube holds: numbers recomputed from masks and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import modhook
from modhook.cube import Cube, open_cube
from modhook.report.facts import Facts, listed
from modhook.report.findings import findings, percent

NBSP = "\N{NO-BREAK SPACE}"


def test_percent_keeps_two_figures() -> None:
    """Shares keep what can be read: no decimals from ten percent on, one from one percent on, two below."""
    assert [percent(x) for x in (0.214, 0.0341, 0.0005, 0.0, 1.0)] == [
        f"{text}{NBSP}%" for text in ("21", "3.4", "0.05", "0", "100")
    ]
    assert percent(0.9813, 1) == f"98.1{NBSP}%"


def test_listing_counts_what_it_leaves_out() -> None:
    """Lists read as sentences, and long ones say how many are left out."""
    assert [listed(x, 2) for x in ([], ["a"], ["a", "b"], ["a", "b", "c", "d"])] == [
        "none",
        "a",
        "a and b",
        "a, b and 2 more",
    ]


def test_headlines_of_one_run(one: Path) -> None:
    """Share of weights, accuracies and IoU are those of masks and scores read the public way."""
    masks = {s: modhook.masks_from(one, seed=1, stage=s) for s in ("control", "add", "mul")}
    with open_cube(one) as tree:
        scores = tree["scores"]["accuracy"].isel(seed=0)

        def at(stage: str, split: str) -> str:
            return percent(float(scores.sel(stage=stage, split=split)), 1)

        kept = {s: percent(m.density) for s, m in masks.items()}
        both = percent(modhook.iou(masks["add"], masks["mul"]))
        chance = float(tree["overlap"]["iou_chance_total"].sel(seed=1, stage="add", other="mul"))
        random = f"random masks of the same sizes would share {percent(chance)}"
        before, after = at("unmasked", "iid"), at("control", "iid")
        start = f"The mask of the control keeps {kept['control']} of the weights; "
        whole = f"{start}{after} on iid, where the unmasked network has {before}."
        assert [str(f) for f in findings(Facts(tree, one))] == [
            f"The mask for add keeps {kept['add']} of the weights; {at('add', 'add')} on add, {at('add', 'mul')} on mul.",
            f"The mask for mul keeps {kept['mul']} of the weights; {at('mul', 'mul')} on mul, {at('mul', 'add')} on add.",
            f"The masks of add and mul share {both} of the weights that either keeps (IoU); {random}.",
            whole,
        ]


def test_facts_count_as_the_masks_do(real: Path) -> None:
    """Shares and mean IoU of every run, counted from packed bits, are those of the unpacked masks."""
    with open_cube(real) as tree:
        facts = Facts(tree, real)
        for seed in (1, 2):
            for beta in (1e-4, 1e-3):
                masks = {s: modhook.masks_from(real, seed=seed, stage=s, beta=beta) for s in ("control", "add", "mul")}
                place = {"seed": seed, "masks.beta": beta}
                for stage, m in masks.items():
                    assert float(facts.kept.sel({**place, "stage": stage})) == m.density
                assert float(facts.overlap.sel(place)) == modhook.iou(masks["add"], masks["mul"])


def test_headlines_of_a_sweep_are_ranges(real: Path) -> None:
    """Over a sweep the smallest and the largest mean over seeds are given, and it is said what they run over."""
    with open_cube(real) as tree:
        means = tree["scores"]["accuracy"].sel(stage="add", split="add").mean("seed").values
        texts = [str(f) for f in findings(Facts(tree, real))]
    low, high = f"{100 * means.min():.1f}", f"{100 * means.max():.1f}{NBSP}%"
    assert (f"{low}\N{EN DASH}{high} on add" if low != high.removesuffix(f"{NBSP}%") else f"{high} on add") in texts[0]
    assert texts[-1] == "Ranges run over 2 settings of masks.beta."


def test_headlines_without_masks(make: Callable[..., Cube], tmp_path: Path) -> None:
    """A cube without masks says how good the network is."""
    values = np.full((1, 4, 3), np.nan)
    values[0, 0] = [0.5, 0.25, 0.75]
    with open_cube(make(tmp_path / "c.zarr", values).path) as tree:
        (only,) = findings(Facts(tree, tmp_path))
    assert str(only) == f"The network reaches 50.0{NBSP}% on iid before any masking."


@pytest.mark.parametrize("seeds", [1, 2])
def test_headlines_of_nothing(seeds: int, make: Callable[..., Cube], tmp_path: Path) -> None:
    """Before the first run there is nothing to say."""
    with open_cube(make(tmp_path / "c.zarr", np.full((seeds, 4, 3), np.nan)).path) as tree:
        assert [str(f) for f in findings(Facts(tree, tmp_path))] == ["No run has finished yet."]
