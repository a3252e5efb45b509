"""Recurrent layers whose weights are the same for all samples, under factors of their units that are not: one product serves all samples.

A unit's factor g multiplies all that its cell is given: the rows of both weights and of both biases, g (W_ih x + b_ih) and
g (W_hh h + b_hh) in each of its gates. The items of all samples are one batch; the order of gates and the layout are torch's, and
so are the formulas (documentation of `torch.nn.LSTM`, `GRU` and `RNN`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modhook.noise.workspace import take
from modhook.stacked.rules.bridge import bridge
from modhook.stacked.rules.lstm_cells import cell_steps

LONGEST = 64
"""With more time steps it would keep more for the backward pass than K stock kernels do."""


def gated_layer(
    kind: str, x: Tensor, hx: Sequence[Tensor], weights: Sequence[Tensor], inputs: Sequence[Sequence[Tensor]],
    gates: Sequence[Sequence[Tensor]], biased: bool, layers: int, dropout: float, train: bool, bidirectional: bool,
    batch_first: bool,
) -> Any:  # fmt: skip
    """Return what `torch.lstm`, `gru`, `rnn_tanh` or `rnn_relu` returns, for one sample's view of stacked tensors.

    Args:
        hx: (h, c), or (h,). weights: those that are the same for all samples, as torch has them.
        inputs: per level and direction, factors of the columns of weight_ih: (I,). gates: those of the rows of all: (4H,), (3H,), (H,).
    """
    steps = x.shape[1 if batch_first else 0]
    plain = (
        x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.dim() == 3 and 0 < steps <= LONGEST
    )
    same = all(t.dtype == x.dtype for t in (*hx, *weights)) and not any(w.requires_grad for w in weights)
    if not (plain and same) or torch.is_autocast_enabled("cpu"):
        return NotImplemented
    factors = [f for several in (*inputs, *gates) for f in several]
    each, directions = (4 if biased else 2), 1 + bidirectional

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        own = [t if s else t.expand(samples, *t.shape) for t, s in zip(tensors, stacked, strict=True)]
        x, states, left = own[0], own[1 : 1 + len(hx)], iter(own[1 + len(hx) :])
        inside, outside = ([[next(left) for _ in several] for several in found] for found in (inputs, gates))
        x = x.permute(2, 0, 1, 3) if batch_first else x.transpose(0, 1)  # (T, K, B, I)
        last: list[tuple[Tensor, ...]] = []
        for depth in range(layers):
            outputs = []
            for direction in range(directions):
                n = depth * directions + direction
                given = x.flip(0) if direction else x
                for factor in inside[n]:
                    given = given * factor.unsqueeze(1)
                own_weights, start = weights[n * each : (n + 1) * each], [s[:, n] for s in states]
                out, *ends = _RUN[kind](own_weights, _multiplied(outside[n]), given, *start)
                outputs.append(out.flip(0) if direction else out)
                last.append(tuple(ends))
            x = torch.cat(outputs, -1) if bidirectional else outputs[0]
            if train and dropout and depth < layers - 1:
                x = F.dropout(x, dropout)
        ends = [torch.stack(column, 1) for column in zip(*last, strict=True)]  # (K, layers * directions, B, H) each
        return (x.permute(1, 2, 0, 3) if batch_first else x.transpose(0, 1)), *ends

    return bridge(compute, [x, *hx, *factors])


def _lstm(weights: Sequence[Tensor], gate: Tensor | None, x: Tensor, h: Tensor, c: Tensor) -> Any:
    bias = weights[2] + weights[3] if len(weights) == 4 else None
    return _Steps.apply(*weights[:2], bias, gate, x, h, c)


def _simple(kind: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return what runs one direction of one level of a GRU or a plain recurrent layer: x (T, K, B, I), h (K, B, H), gate (K, gates H)."""

    def run(weights: Sequence[Tensor], gate: Tensor | None, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        w_ih, w_hh = weights[:2]
        b_ih, b_hh = weights[2:] if len(weights) == 4 else (None, None)
        wide = None if gate is None else gate.unsqueeze(1)  # (K, 1, gates H)
        given = F.linear(x, w_ih, b_ih)
        given = given if wide is None else given * wide  # (T, K, B, gates H)
        outputs = []
        for now in given.unbind():
            own = F.linear(h, w_hh, b_hh)
            own = own if wide is None else own * wide
            if kind == "gru":
                (r, z, n), (own_r, own_z, own_n) = now.chunk(3, -1), own.chunk(3, -1)
                z = (z + own_z).sigmoid()
                new = (n + (r + own_r).sigmoid() * own_n).tanh()
                h = new + z * (h - new)
            else:
                h = (now + own).tanh() if kind == "rnn_tanh" else (now + own).relu()
            outputs.append(h)
        return torch.stack(outputs), h

    return run


_RUN: dict[str, Callable[..., Any]] = {
    "lstm": _lstm,
    **{kind: _simple(kind) for kind in ("gru", "rnn_tanh", "rnn_relu")},
}


def _multiplied(factors: Sequence[Tensor]) -> Tensor | None:
    found: Tensor | None = None
    for factor in factors:
        found = factor if found is None else found * factor
    return found


class _Steps(torch.autograd.Function):
    """One direction of one level of an LSTM: x (T, K, B, I), h and c (K, B, H), gate (K, 4H) -> outputs (T, K, B, H), last h and c."""

    @staticmethod
    def forward(
        ctx: Any, w_ih: Tensor, w_hh: Tensor, bias: Tensor | None, gate: Tensor | None, x: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        t, k, b, _ = x.shape
        size = w_hh.shape[1]
        given = take((t, k * b, 4 * size), x.dtype, x.device)  # W_ih x + b, to which each step adds W_hh h
        flat = x.reshape(t * k * b, -1)
        if bias is None:
            torch.mm(flat, w_ih.T, out=given.view(t * k * b, -1))
        else:
            torch.addmm(bias, flat, w_ih.T, out=given.view(t * k * b, -1))
        gates = given if gate is None else take(given.shape, x.dtype, x.device)
        out, cells, squashed = (take((1, t, k * b, size), x.dtype, x.device) for _ in range(3))
        h, c = (s.reshape(k * b, size).contiguous() for s in (h, c))
        start, wide = c.unsqueeze(0), None if gate is None else gate.unsqueeze(1)  # (1, K B, H), (K, 1, 4H)
        zero = t > 1 and not h.any()  # then the first product would be one of zeros
        with cell_steps(x.dtype) as (forward, _):
            none = x.new_zeros(1, k * b, 4 * size)
            step = forward(gates.unsqueeze(0), none, start, cells, squashed, out)
            for s in range(t):
                if s or not zero:
                    given[s].addmm_(h, w_hh.T)
                if wide is not None:
                    torch.mul(given[s].view(k, b, -1), wide, out=gates[s].view(k, b, -1))
                step(s)
                h = out[0, s]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, w_ih, w_hh, gate, gates, None if gate is None else given, cells, squashed)
        ctx.sizes = t, k, b
        shape = (k, b, size)
        return out.view(t, *shape), h.clone().view(shape), cells[0, -1].clone().view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None, d_c: Tensor | None) -> Any:
        if d_out is None and d_h is None and d_c is None:
            return (None,) * 7
        c0, w_ih, w_hh, gate, gates, given, cells, squashed = ctx.saved_tensors
        (t, k, b), size = ctx.sizes, w_hh.shape[1]
        *_, needs_gate, needs_x, needs_h, needs_c = ctx.needs_input_grad
        d_out = cells.new_zeros(cells.shape) if d_out is None else d_out.reshape(cells.shape).contiguous()
        d_h, d_c = (
            cells.new_zeros(1, k * b, size)
            if d is None
            else d.reshape(1, k * b, size).clone(memory_format=torch.contiguous_format)
            for d in (d_h, d_c)
        )
        d_gates = take(gates.shape, gates.dtype, gates.device)
        d_given = d_gates if gate is None else take(gates.shape, gates.dtype, gates.device)
        with cell_steps(cells.dtype) as (_, backward):
            step = backward(gates.unsqueeze(0), c0, cells, squashed, d_out, d_h, d_c, d_gates.unsqueeze(0))
            for s in reversed(range(t)):
                step(s)  # d_c becomes that of the step before
                if gate is not None:
                    torch.mul(d_gates[s].view(k, b, -1), gate.unsqueeze(1), out=d_given[s].view(k, b, -1))
                if s or needs_h:
                    torch.mm(d_given[s], w_hh, out=d_h[0])
        to_gate = to_x = None
        if needs_gate:
            to_gate = d_gates.mul_(given).view(t, k, b, -1).sum((0, 2))  # (K, 4H)
        if needs_x:
            to_x = (d_given.view(t * k * b, -1) @ w_ih).view(t, k, b, -1)
        return (
            None, None, None, to_gate, to_x,
            d_h.view(k, b, size) if needs_h else None,
            d_c.view(k, b, size) if needs_c else None,
        )  # fmt: skip
