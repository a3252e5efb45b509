"""Recurrent layers of a network in eval mode can be differentiated where cuDNN wants training mode for that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode

import modhook
from modhook.network import recurrent
from modhook.network.recurrent import with_gradients


class Seen(TorchFunctionMode):
    """Hears (dropout, training) of every recurrent layer that is really called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in recurrent.LAYERS:
            at = 6 if isinstance(args[3], (list, tuple)) else 5
            self.calls.append((args[at], args[at + 1]))
        return func(*args, **(kwargs or {}))


KINDS = {
    "lstm": lambda: nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True),
    "gru": lambda: nn.GRU(3, 4, 2, dropout=0.5, batch_first=True),
    "tanh": lambda: nn.RNN(3, 4, 2, dropout=0.5, batch_first=True),
    "relu": lambda: nn.RNN(3, 4, 2, dropout=0.5, batch_first=True, nonlinearity="relu", bidirectional=True),
}


def _outputs(layer: nn.Module, packed: bool) -> Tensor:
    x = torch.linspace(-1, 1, 2 * 5 * 3).view(2, 5, 3)
    found: Tensor = layer(pack_padded_sequence(x, [5, 2], batch_first=True))[0].data if packed else layer(x)[0]
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_eval_mode_is_computed_in_training_mode_without_dropout(kind: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device wants it, the kernel is called in training mode without dropout, and gives eval mode's numbers and gradients."""
    monkeypatch.setattr(recurrent, "_CUDNN", {"cpu"})
    layer = KINDS[kind]().eval()
    plain = _outputs(layer, packed)
    gradients = torch.autograd.grad(plain.sum(), list(layer.parameters()))
    with Seen() as seen, with_gradients(layer):
        found = _outputs(layer, packed)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), list(layer.parameters())), gradients)
    assert set(seen.calls) == {(0.0, True)}
    torch.testing.assert_close(found, plain)
    assert not layer.training


class Cudnn(TorchFunctionMode):
    """Refuses, outermost, what cuDNN refuses: a recurrent layer in eval mode where gradients are taken."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in recurrent.LAYERS and torch.is_grad_enabled():
            assert args[7 if isinstance(args[3], (list, tuple)) else 6], "cudnn RNN backward can only be called in training mode"
        return func(*args, **(kwargs or {}))


class Reader(nn.Module):
    """A GRU and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.last = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 3) -> (B, 2)."""
        out: Tensor = self.last(self.cells(x)[0][:, -1])
        return out


def _loss(net: Any, batch: Any) -> Tensor:
    return (net(batch[0]) ** 2).mean()


FITS: dict[str, dict[str, Any]] = {
    "vmap": {"executor": "vmap"},
    "loop": {"executor": "loop"},
    "units": {"units": "neuron"},
    "snip": {"sampler": "snip", "density": 0.5},
    "integrated_gradients": {"sampler": "integrated_gradients", "density": 0.5},
    "in chunks": {"memory": 3000},
}


@pytest.mark.filterwarnings("ignore::modhook.errors.ModhookWarning")
@pytest.mark.parametrize("case", FITS)
def test_fits_of_a_frozen_recurrent_network_take_gradients(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in which masks are learned asks a recurrent layer of a frozen network in the mode that cuDNN wants."""
    monkeypatch.setattr(recurrent, "_CUDNN", {"cpu"})
    torch.manual_seed(0)
    net, batch = Reader().eval(), (torch.randn(8, 5, 3),)
    with Cudnn(), pytest.raises(AssertionError):
        net(batch[0])
    with Cudnn():
        modhook.fit_masks(net, [batch], _loss, steps=2, progress=False, **FITS[case])
        modhook.inspect(net, batch[0], samples=2, progress=False)
    assert not net.training


def test_what_needs_no_help_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients, in training mode, and on the CPU, the layer is called as it is."""
    layer = KINDS["lstm"]()
    with Seen() as seen:
        with with_gradients(layer.eval()):  # the CPU
            _outputs(layer, packed=False)
        monkeypatch.setattr(recurrent, "_CUDNN", {"cpu"})
        with torch.no_grad(), with_gradients(layer):
            _outputs(layer, packed=False)
        with with_gradients(layer.train()):
            _outputs(layer, packed=False)
    assert seen.calls == [(0.5, False), (0.5, False), (0.5, True)]
