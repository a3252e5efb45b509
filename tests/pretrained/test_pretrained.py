"""Networks that people really have go through the whole of modhook. `nox -s pretrained`."""

from __future__ import annotations

import copy
from pathlib import Path

import attrs
import numpy as np
import pretrained_cases
import pytest
import torch
from pretrained_cases import Case
from pretrained_page import Row, row_of

import modhook

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns about things that are none of our business here


DENSITY = 0.7
"""Share of the masked weights that is kept: the size is given, so that nothing is looked for and every score says something."""


@attrs.frozen
class Made:
    case: Case
    net: torch.nn.Module
    fits: dict[str, modhook.Fit]


@pytest.fixture(scope="module", params=sorted(pretrained_cases.CASES))
def made(request: pytest.FixtureRequest) -> Made:
    """A network, loaded once, and one fit of each of its functions."""
    case = pretrained_cases.CASES[request.param]()
    net = case.made()
    learning = {"include": case.include, "steps": case.steps // 2, "lr": 0.1, "density": DENSITY, "progress": False}
    fits = {
        name: modhook.fit_masks(net, batches, per(case.loss, name), **learning)
        for name, batches in case.functions.items()
    }
    return Made(case, net, fits)


def per(given: object, name: str) -> object:
    """Return the loss or the score of a function."""
    return given[name] if isinstance(given, dict) else given


def test_inspect_finds_an_exact_route(made: Made) -> None:
    """All parameters are found, and the network runs vectorised under four sets of weights as plain runs of it do."""
    report = modhook.inspect(made.net, **made.case.example)
    assert {"vmap", "loop"} <= set(report.errors)  # which of them is chosen is a question of speed
    assert max(report.errors.values()) < 1e-3
    assert sum(p.count for p in report.parameters) == sum(p.numel() for p in made.net.parameters())


def test_fit_is_a_network_with_zeros(made: Made) -> None:
    """A mask scores what a copy with its weights multiplied by hand scores in a plain loop. The network stays as it was."""
    case = made.case
    for name, fit in made.fits.items():
        assert fit.masks.kept() == round(DENSITY * fit.masks.size)
        by_hand = copy.deepcopy(made.net)
        for tensor, mask in fit.masks.items():
            by_hand.get_parameter(tensor).data.mul_(mask)
        score, tests = per(case.score, name), case.tests[name]

        def plain(net: torch.nn.Module, score=score, tests=tests) -> float:
            with torch.no_grad():
                return float(torch.cat([score(net, batch).double() for batch in tests]).mean())

        assert modhook.evaluate(made.net, fit.masks, tests, score) == pytest.approx(plain(by_hand), abs=1e-6)
        assert modhook.evaluate(made.net, None, tests, score) == pytest.approx(plain(made.net), abs=1e-6)
    anew = case.made().state_dict()
    assert all(torch.equal(anew[name], tensor) for name, tensor in made.net.state_dict().items())


def test_saved_masks_and_fits_come_back(made: Made, tmp_path: Path) -> None:
    """Masks and fits of a network are loaded onto another loading of it, bit for bit, and are refused by a network of other parameters."""
    fit = next(iter(made.fits.values()))
    anew = made.case.made()
    fit.masks.save(tmp_path / "masks.safetensors")
    fit.save(tmp_path / "fit")
    masks, loaded = modhook.Masks.load(tmp_path / "masks.safetensors", anew), modhook.Fit.load(tmp_path / "fit", anew)
    assert masks == fit.masks
    assert loaded.masks == fit.masks
    kept = fit.masks.kept() // 2
    assert loaded.cut(keep=kept) == fit.cut(keep=kept)
    with pytest.raises(modhook.UserError):
        modhook.Masks.load(tmp_path / "masks.safetensors", torch.nn.Linear(2, 2))


def test_asked_with_controls(made: Made, results: dict[str, Row]) -> None:
    """Both functions in one call with all controls: nothing fails, everything is measured, and other networks lack the score."""
    case = made.case
    answer = modhook.ask(
        made.net, case.functions, loss=case.loss, score=case.score, tests=case.tests, include=case.include, lr=0.1,
        steps=case.steps, batch=case.batch, density=DENSITY, seeds=1, controls=True, threads=1, progress=False,
    )  # fmt: skip
    assert not answer.failed
    kinds = {str(kind) for kind in answer.cube["controls"]["kind"].values.ravel()}
    assert kinds == {"shuffled", "untrained", "nonsense"}
    found = row_of(case, made.net, made.fits[next(iter(case.functions))].route["route"], answer)
    results[case.name] = found
    for line in found.functions:
        assert all(np.isfinite(attrs.astuple(line)[3:]))
        assert line.kept == pytest.approx(DENSITY, abs=1e-6)
        assert line.random < line.unmasked
        assert line.shuffled < line.unmasked
