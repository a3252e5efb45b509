"""Recurrent layers of a network in eval mode can be differentiated where cuDNN wants training mode for that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode

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
