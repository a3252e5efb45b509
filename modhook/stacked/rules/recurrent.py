"""nn.LSTM, nn.GRU, nn.RNN and their cells in all variants: vmap has no rule for these operations and stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.network.recurrent import place_of_weights
from modhook.stacked.rules.bridge import bridge
from modhook.stacked.rules.lstm import LONGEST, short_lstm
from modhook.stacked.rules.memory import Memory
from modhook.stacked.trees import flatten

CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


def layer(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a whole layer, of packed sequences too."""
    weights_at = place_of_weights(args)
    if func is torch._VF.lstm and weights_at == 2 and not kwargs and _short(*args):
        return short_lstm(memory, *args)
    return per_sample(memory, func, args, kwargs, weights_at)


def _short(x: Tensor, hx: Any, weights: Sequence[Tensor], biased: bool, layers: int, *options: Any) -> bool:
    """Return whether the rule for few steps applies: on CPU, where the stock kernel needs a call per sample anyway."""
    directions, batch_first = 1 + bool(options[2]), options[3]
    projected = len(weights) != layers * directions * (4 if biased else 2)
    steps = x.shape[1 if batch_first else 0]
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.dim() == 3
    same = all(t.dtype == x.dtype for t in (*hx, *weights))
    return plain and same and not projected and 0 < steps <= LONGEST and not torch.is_autocast_enabled("cpu")


def cell(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one step: func(input, states, w_ih, w_hh, b_ih, b_hh)."""
    return per_sample(memory, func, args, kwargs, 2)


def per_sample(
    memory: Memory,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    weights_at: int,
    *,
    writes: bool = False,
) -> Any:
    """Run the stock operation once per sample on its own slices: same kernels, same numbers as without stacking.

    Only this operation loops over K. The weights, from argument `weights_at` on, are cut into samples once per stacked
    call, so that a network that calls its recurrent layer once per token adds up gradients per sample, and stacks them
    once.
    """
    before = len(flatten(args[:weights_at]).leaves)
    tree = flatten((args, kwargs))

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        columns: list[Sequence[Tensor]] = []
        for i, tensor in enumerate(tensors):
            if not stacked[i]:
                columns.append([tensor] * samples)
            elif writes:  # into one of its tensors, which views made together do not allow
                columns.append([tensor[k] for k in range(samples)])
            elif i >= before:
                columns.append(memory.once((tensor,), torch.Tensor.unbind))
            else:
                columns.append(tensor.unbind())
        results = []
        for row in zip(*columns, strict=True):
            own_args, own_kwargs = tree.rebuild(row)
            result = func(*own_args, **own_kwargs)
            results.append((result,) if isinstance(result, Tensor) else result)
        return tuple(torch.stack(column) for column in zip(*results, strict=True))

    found = bridge(compute, [leaf.tensor for leaf in tree.leaves])
    return found[0] if len(found) == 1 else found
