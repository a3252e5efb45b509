"""The LSTM with a readout: its reading, and the paper's initialisation measured on the weights."""

from __future__ import annotations

import pytest
import torch

from modhook import UserError
from modhook_plugins.networks.lstm import LSTM, LSTMOptions


def test_a_vector_is_shown_three_times() -> None:
    """A vector gives the last output of the sequence that repeats it."""
    net = LSTM(LSTMOptions(hidden=5)).build({"inputs": 4, "outputs": 3})
    x = torch.randn(6, 4)
    torch.testing.assert_close(net(x), net(torch.stack([x] * 3, 1))[:, -1])
    assert net(torch.randn(6, 7, 4)).shape == (6, 7, 3)


def test_initialisation() -> None:
    """Forget bias 1 and no other; one bias learns; Xavier deviations by formula; an orthogonal recurrent cell gate."""
    torch.manual_seed(0)
    net = LSTM(LSTMOptions()).build({"inputs": 80, "outputs": 40})
    for layer, fan_in in ((0, 80), (1, 256)):
        bias = getattr(net.lstm, f"bias_ih_l{layer}")
        assert bias.view(4, 256).unique(dim=1).flatten().tolist() == [0, 1, 0, 0]
        second = getattr(net.lstm, f"bias_hh_l{layer}")
        assert not second.any()
        assert (bias.requires_grad, second.requires_grad) == (True, False)
        i, f, g, o = getattr(net.lstm, f"weight_ih_l{layer}").detach().chunk(4)
        plain = (2 / (fan_in + 256)) ** 0.5 / 2**0.5
        for gate, gain in ((i, 1), (f, 1), (g, 5 / 3), (o, 1)):
            assert abs(float(gate.std()) / (gain * plain) - 1) < 0.05
        cell = getattr(net.lstm, f"weight_hh_l{layer}").detach().chunk(4)[2]
        torch.testing.assert_close(cell @ cell.T, torch.eye(256) * (5 / 3) ** 2 / 2, rtol=0, atol=1e-5)
    for readout in (net.output.weight, net.output.bias):  # torch's own: uniform within 1 / sqrt(fan in)
        assert 0.9 / 16 < readout.detach().abs().max() <= 1 / 16


def test_another_task_is_refused() -> None:
    """A task without vector inputs is refused by name."""
    with pytest.raises(UserError, match="'lstm' needs a task with vector inputs"):
        LSTM(LSTMOptions()).build({"source_vocabulary": 3})
