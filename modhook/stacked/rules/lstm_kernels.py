"""One time step of stacked LSTM cells in one pass, compiled for CPU; loops are short, over few arrays, so that each runs many
numbers per instruction.

Rows are the K B items of all samples. Gate order (i, f, g, o) is torch's.
"""

from __future__ import annotations

import numba
import numpy as np

from modhook.noise.kernels import compiled, exponential, spread

_ONE, _TWO, _FAR = np.float32(1), np.float32(2), np.float32(80)


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return _ONE / (_ONE + exponential(min(max(-x, -_FAR), _FAR)))


@spread
def forward_step(gates, recurrent, c, cells, squashed, out, s):  # type: ignore[no-untyped-def]
    """Add `recurrent` (K, B, 4H) to gates[:, s] (K, T, B, 4H), squash, and write step s of cells, tanh(cells) and outputs.

    These are (K, T, B, H).

    `c` (K, B, H) is the cell before; it is read only at step 0, later the step before is.
    """
    k, _, b, h = cells.shape
    for row in numba.prange(k * b):
        i, j = row // b, row % b
        gate, cell, tanh, result = gates[i, s, j], cells[i, s, j], squashed[i, s, j], out[i, s, j]
        more = recurrent[i, j]
        before = cells[i, s - 1, j] if s > 0 else c[i, j]
        # Slices, since indices that may be negative, as far as the compiler knows, are done one by one.
        both, g, o = gate[: 2 * h], gate[2 * h : 3 * h], gate[3 * h :]
        for n in range(4 * h):
            gate[n] += more[n]
        for n in range(2 * h):
            both[n] = _sigmoid(both[n])
        for n in range(h):
            g[n] = _TWO * _sigmoid(_TWO * g[n]) - _ONE
        for n in range(h):
            o[n] = _sigmoid(o[n])
        for n in range(h):
            cell[n] = both[h + n] * before[n]
        for n in range(h):
            cell[n] += both[n] * g[n]
        for n in range(h):
            tanh[n] = _TWO * _sigmoid(_TWO * cell[n]) - _ONE
        for n in range(h):
            result[n] = o[n] * tanh[n]


@spread
def backward_step(gates, c, cells, squashed, d_out, d_h, d_c, d_gates, s):  # type: ignore[no-untyped-def]
    """Write the gradient of gates[:, s] before squashing into d_gates[:, s].

    `d_out` (K, T, B, H) and `d_h` (K, B, H) add up to the gradient of the step's output; `d_c` (K, B, H), the gradient of
    the step's cell, becomes that of the cell before.
    """
    k, _, b, h = cells.shape
    for row in numba.prange(k * b):
        i, j = row // b, row % b
        gate, tanh, d_gate = gates[i, s, j], squashed[i, s, j], d_gates[i, s, j]
        before = cells[i, s - 1, j] if s > 0 else c[i, j]
        above, later, d_cell = d_out[i, s, j], d_h[i, j], d_c[i, j]
        d = np.empty(h, np.float32)
        for n in range(h):
            d[n] = above[n] + later[n]
        for n in range(h):
            o = gate[3 * h + n]
            d_gate[3 * h + n] = d[n] * tanh[n] * o * (_ONE - o)
        for n in range(h):
            d_cell[n] += d[n] * gate[3 * h + n] * (_ONE - tanh[n] * tanh[n])
        for n in range(h):
            f = gate[h + n]
            d_gate[h + n] = d_cell[n] * before[n] * f * (_ONE - f)
        for n in range(h):
            a, g = gate[n], gate[2 * h + n]
            d_gate[n] = d_cell[n] * g * a * (_ONE - a)
        for n in range(h):
            a, g = gate[n], gate[2 * h + n]
            d_gate[2 * h + n] = d_cell[n] * a * (_ONE - g * g)
        for n in range(h):
            d_cell[n] *= gate[h + n]


forward_alone, backward_alone = compiled(forward_step.py_func), compiled(backward_step.py_func)
"""The same on one thread."""
