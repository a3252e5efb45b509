"""Masks over heads and neurons of a compiled program find those that it needs, and no others."""

from __future__ import annotations

import pytest
import torch

import modhook
from modhook.masks import Masks
from modhook_tasks import known


@pytest.mark.filterwarnings("ignore::modhook.TrustWarning")
def test_needed_heads_and_neurons_of_a_program() -> None:
    """Of two programs side by side one needs a head and a neuron: those with a weight without which more than 1 % of inputs fail."""
    network = known.build("frac_prevs+hist")
    part, necessary = network.functions["frac_prevs"], network.truth.necessary["frac_prevs"]
    units = modhook.units(network.model).select(["head", "neuron"])
    needed = {}
    for group in units.values():
        needed[group.name] = torch.zeros(len(group), dtype=torch.bool)
        for own in group.parts:
            owner = own.owner.expand(necessary[own.parameter].shape)
            for unit in range(len(group)):
                needed[group.name][unit] |= bool(necessary[own.parameter][owner == unit].any())
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
