"""A stacked LSTM: one product for the inputs of all time steps, batched products over K, and compiled cells.

Networks that write token by token call their LSTM with one step at a time. There, adding up the K weight gradients call
by call costs more than the arithmetic; here every call leaves its inputs and gate gradients behind, and `_Weights` forms
the weight gradients of all calls of one backward pass with one batched product each.

Gate order (i, f, g, o) and weight layout are torch's; the recurrence is that of the documentation of `torch.nn.LSTM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modhook.noise.workspace import take
from modhook.stacked.rules.bridge import bridge
from modhook.stacked.rules.lstm_cells import cell_steps
from modhook.stacked.rules.memory import Memory

LONGEST = 64
"""With more time steps than this the stock kernel, once per sample, is taken: it keeps less for the backward pass."""


def short_lstm(
    memory: Memory, x: Tensor, hx: Sequence[Tensor], weights: Sequence[Tensor], biased: bool, layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> Any:  # fmt: skip
    """Return what `torch.lstm` returns, for one sample's view of stacked tensors; no projection."""

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        x, h, c = (t if s else t.expand(samples, *t.shape) for t, s in zip(tensors[:3], stacked[:3], strict=True))
        x = x.transpose(1, 2) if batch_first else x  # (K, T, B, I)
        each = 4 if biased else 2
        directions = 2 if bidirectional else 1
        last: list[tuple[Tensor, Tensor]] = []
        for depth in range(layers):
            outputs = []
            for direction in range(directions):
                n = depth * directions + direction
                at = slice(3 + n * each, 3 + (n + 1) * each)
                raw, has_k = tensors[at], stacked[at]
                collected = memory.once(tuple(raw), lambda *raw, has_k=has_k: _collected(samples, raw, has_k))
                out, h_n, c_n = _Steps.apply(*collected, x.flip(1) if direction else x, h[:, n], c[:, n])
                outputs.append(out.flip(1) if direction else out)
                last.append((h_n, c_n))
            x = torch.cat(outputs, -1) if bidirectional else outputs[0]
            if train and dropout and depth < layers - 1:
                x = F.dropout(x, dropout)
        h_all, c_all = (torch.stack(column, 1) for column in zip(*last, strict=True))  # (K, layers * directions, B, H)
        return (x.transpose(1, 2) if batch_first else x), h_all, c_all

    return bridge(compute, [x, *hx, *weights])


class _Store:
    """What the calls of one layer leave for its weight gradients, by backward pass."""

    def __init__(self) -> None:
        self._left: dict[int, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}

    def leave(self, x: Tensor, before: Tensor, d_gates: Tensor, d_later: Tensor) -> None:
        """Keep inputs (K, N, I) and gate gradients (K, N, 4H) of one call, and both for states before: (K, M, H), (K, M, 4H)."""
        # Anything left by another backward pass belongs to one that asked for no weight gradient.
        task = torch._C._current_graph_task_id()
        if task not in self._left:
            self._left = {task: []}
        self._left[task].append((x, before, d_gates, d_later))

    def take(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return, and forget, what the calls left in the running backward pass."""
        left = self._left.pop(torch._C._current_graph_task_id(), [])
        self._left = {}
        return left


def _collected(samples: int, raw: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Any, ...]:
    """Return (store, w_ih (K, 4H, I), w_hh (K, 4H, H), bias (K, 4H) or None), whose gradients go through the store."""
    w_ih, w_hh, *biases = (t if has_k else t.expand(samples, *t.shape) for t, has_k in zip(raw, stacked, strict=True))
    store = _Store()
    bias = biases[0] + biases[1] if biases else None
    return (store, *_Weights.apply(store, w_ih, w_hh, bias))


class _Weights(torch.autograd.Function):
    """The identity on a layer's weights; its backward runs after those of all calls and sums up what they left."""

    @staticmethod
    def forward(ctx: Any, store: _Store, w_ih: Tensor, w_hh: Tensor, bias: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        ctx.store = store
        return w_ih.view_as(w_ih), w_hh.view_as(w_hh), None if bias is None else bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Any) -> Any:
        _, ih, hh, b = ctx.needs_input_grad
        left = ctx.store.take()
        if not left:
            return None, None, None, None
        inputs, before, d_all, d_later = zip(*left, strict=True)
        d_gates = _joined(d_all)  # (K, N, 4H), N = all steps and items of all calls
        # Without the steps that began at zero, where there are such.
        d_hidden = d_gates if all(a is b for a, b in zip(d_all, d_later, strict=True)) else _joined(d_later)
        return (
            None,
            _product(d_gates, _joined(inputs)) if ih else None,  # (K, 4H, I)
            _product(d_hidden, _joined(before)) if hh else None,  # (K, 4H, H)
            d_gates.sum(1) if b else None,
        )


def _product(d_gates: Tensor, inputs: Tensor) -> Tensor:
    """Return (K, 4H, X) for d_gates (K, N, 4H) and inputs (K, N, X)."""
    shape = (len(inputs), d_gates.shape[-1], inputs.shape[-1])
    return torch.bmm(d_gates.mT, inputs, out=take(shape, inputs.dtype, inputs.device))


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _Steps(torch.autograd.Function):
    """One direction of one layer: x (K, T, B, I), h and c (K, B, H) -> outputs (K, T, B, H), last h and c."""

    @staticmethod
    def forward(
        ctx: Any, store: _Store, w_ih: Tensor, w_hh: Tensor, bias: Tensor | None, x: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        k, t, b, _ = x.shape
        size = w_hh.shape[-1]
        flat = x.reshape(k, t * b, -1)
        gates = take((k, t * b, 4 * size), x.dtype, x.device)
        if bias is None:
            torch.bmm(flat, w_ih.mT, out=gates)
        else:
            torch.baddbmm(bias.unsqueeze(1), flat, w_ih.mT, out=gates)
        gates = gates.view(k, t, b, 4 * size)
        out, cells, squashed = (take((k, t, b, size), x.dtype, x.device) for _ in range(3))
        start = h, c.contiguous()
        # Layers begin at zero unless told otherwise, and a product with zeros costs as much as any.
        ctx.zero = t > 1 and not h.any()
        with cell_steps(x.dtype) as (forward, _):
            recurrent = x.new_empty(k, b, 4 * size)  # torch does the K products at once only into contiguous memory
            step = forward(gates, recurrent, start[1], cells, squashed, out)
            for s in range(t):
                if s == 0 and ctx.zero:
                    recurrent.zero_()
                else:
                    torch.bmm(h, w_hh.mT, out=recurrent)
                step(s)
                h = out[:, s]
        ctx.set_materialize_grads(False)
        ctx.store = store
        ctx.save_for_backward(x, *start, w_ih, w_hh, gates, cells, squashed, out)
        return out, h.clone(), cells[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None, d_c: Tensor | None) -> Any:
        if d_out is None and d_h is None and d_c is None:
            return (None,) * 7
        x, h0, c0, w_ih, w_hh, gates, cells, squashed, out = ctx.saved_tensors
        k, t, b, _ = x.shape
        _, ih, hh, bias, needs_x, needs_h, needs_c = ctx.needs_input_grad
        d_gates = take(gates.shape, gates.dtype, gates.device)
        d_out = out.new_zeros(out.shape) if d_out is None else d_out.contiguous()
        d_h, d_c = (
            out.new_zeros(c0.shape) if d is None else d.clone(memory_format=torch.contiguous_format) for d in (d_h, d_c)
        )
        with cell_steps(x.dtype) as (_, backward):
            step = backward(gates, c0, cells, squashed, d_out, d_h, d_c, d_gates)
            for s in reversed(range(t)):
                step(s)  # d_c becomes that of the step before
                if s or needs_h:
                    torch.bmm(d_gates[:, s], w_hh, out=d_h)
        flat = d_gates.view(k, t * b, -1)  # (K, T B, 4H)
        if ih or hh or bias:
            later = flat
            if ctx.zero:
                before, later = out[:, :-1].flatten(1, 2), flat[:, b:]
            else:
                before = h0 if t == 1 else torch.cat([h0.unsqueeze(1), out[:, :-1]], 1).view(k, t * b, -1)
            ctx.store.leave(x.reshape(k, t * b, -1), before, flat, later)
        return (
            None, None, None, None,
            torch.bmm(flat, w_ih).view(x.shape) if needs_x else None,
            d_h if needs_h else None,
            d_c if needs_c else None,
        )  # fmt: skip
