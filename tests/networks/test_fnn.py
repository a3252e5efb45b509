"""The fully connected network plugin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modhook import UserError
from modhook_plugins.networks.fnn import FNN, FNNOptions


def test_layers() -> None:
    """It is the plain stack of stock layers that its name says."""
    model = FNN(FNNOptions((5, 7))).build({"inputs": 3, "outputs": 2})
    assert [tuple(p.shape) for p in model.parameters()] == [(5, 3), (5,), (7, 5), (7,), (2, 7), (2,)]
    x = torch.randn(4, 3)
    plain = model.output(model.layer2(model.layer1(x).relu()).relu())
    assert torch.equal(model(x), plain)
    assert {type(m) for m in model} == {nn.Linear, nn.ReLU}


def test_a_shape_it_cannot_serve() -> None:
    """A task without vector inputs is refused by name."""
    with pytest.raises(UserError, match="'fnn' needs a task with vector inputs"):
        FNN(FNNOptions()).build({"source_vocabulary": 3})
