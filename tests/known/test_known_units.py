"""Masks over heads and neurons of a compiled program find those that it needs, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import modhook
from modhook.masks import Masks
from modhook_tasks import known


def without_each(network: Any, function: str) -> dict[str, torch.Tensor]:
    """The units without which, one at a time, more than 1 % of a function's inputs fail."""
    part, model = network.functions[function], network.model
    units = modhook.units(model).select(["head", "neuron"])
    needed = {name: torch.zeros(len(group), dtype=torch.bool) for name, group in units.items()}
    for name, unit in [(n, u) for n, group in units.items() for u in range(len(group))]:
        kept = {n: torch.ones(len(group), dtype=torch.bool) for n, group in units.items()}
        kept[name][unit] = False
        with torch.no_grad(), Masks(kept, model, units=units).applied_to(model):
            needed[name][unit] = float(part.score(model, part.everything()).float().mean()) < 0.99
    return needed


def test_the_needed_units_are_enough() -> None:
    """Ten units are needed for `hist`, and it is right on all inputs with no other: neurons with needed weights need not be needed."""
    network = known.build("frac_prevs+hist")
    needed, part = without_each(network, "hist"), network.functions["hist"]
    numbers = {n: m.nonzero().flatten().tolist() for n, m in needed.items() if m.any()}
    assert numbers == {"neuron:blocks.0.up": [2, 3, 4, 5, 6, 7, 8, 9, 12], "head:blocks.0.attention": [1]}
    masks = Masks(needed, network.model, units=modhook.units(network.model))
    with torch.no_grad(), masks.applied_to(network.model):
        assert bool(part.score(network.model, part.everything()).all())


@pytest.mark.filterwarnings("ignore::modhook.TrustWarning")
def test_needed_heads_and_neurons_of_a_program() -> None:
    """Of two programs side by side one needs a head and a neuron: those without which more than 1 % of inputs fail."""
    network = known.build("frac_prevs+hist")
    part, units = network.functions["frac_prevs"], modhook.units(network.model).select(["head", "neuron"])
    needed = without_each(network, "frac_prevs")
    assert sum(int(m.sum()) for m in needed.values()) == 2
    fit = modhook.fit_masks(
        network.model,
        part.batches(seed=0, passes=100),
        part.loss,
        units=["head", "neuron"],
        steps=150,
        lr=0.1,
        beta=1e-2,
        progress=False,
    )
    assert fit.masks == Masks(needed, network.model, units=units)
