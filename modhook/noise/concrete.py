"""Hard-concrete masks in one pass over the weights, compiled for CPU; noise as in `kernels`, drawn twice and never stored.

Louizos, Welling, Kingma (2018), section 2.2 and formula 10 to 12, with their temperature b = 2/3, gamma = -0.1, zeta = 1.1:
s = sigmoid((log u - log(1 - u) + l) / b), z = min(1, max(0, s (zeta - gamma) + gamma)). With r = exp(-l) (1 - u) / u that is
s = 1 / (1 + r sqrt(r)): a root and a division per number, and neither log nor exp.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from modhook.noise.kernels import BLOCK, compiled, draw_block, exponential, register, spread

GAMMA, ZETA = -0.1, 1.1
_STRETCH, _SHIFT = np.float32(ZETA - GAMMA), np.float32(GAMMA)
_SLOPE = np.float32((ZETA - GAMMA) * 1.5)  # 1 / b = 1.5
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_LEAST, _MOST = np.float32(-41), np.float32(41)
_TINY = np.float32(2.0**-25)  # half of the smallest step of u: u = 0 is a mask that is off


@compiled
def odds(logits, e):  # type: ignore[no-untyped-def]
    """Write exp(-l) into `e`."""
    for i in range(logits.size):
        e[i] = exponential(min(max(-logits[i], _LEAST), _MOST))


@compiled
def soft(key, number, e, s):  # type: ignore[no-untyped-def]
    """Write s = 1 / (1 + r sqrt(r)), r = e (1 - u) / u, for block `number` of the stream `key` into `s`, from e = exp(-l)."""
    draw_block(key, number, s)
    for i in range(BLOCK):
        x = max(s[i], _TINY)
        r = e[i] * (_ONE - x) / x
        s[i] = _ONE / (_ONE + r * np.sqrt(r))


@compiled
def sample_concrete(keys, first, last, w, logits, binary, out):  # type: ignore[no-untyped-def]
    """Write W times z (or times 1[z > 1/2] where `binary`) for every key into `out` (K, N)."""
    s, e = np.empty(BLOCK, np.float32), np.ones(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, w.size - start)
        weight = w[start : start + size]
        odds(logits[start : start + size], e)
        for k in range(keys.shape[0]):
            soft(keys[k], b, e, s)
            row = out[k, start : start + size]
            if binary[0]:
                for i in range(size):
                    row[i] = weight[i] if s[i] > _HALF else _ZERO
            else:
                for i in range(size):
                    row[i] = weight[i] * min(_ONE, max(_ZERO, s[i] * _STRETCH + _SHIFT))


@compiled
def pull_back_concrete(keys, first, last, w, logits, grad, out):  # type: ignore[no-untyped-def]
    """Write the logits' gradient into `out` (N,): dz / dl = (zeta - gamma) s (1 - s) / b where 0 < z < 1, else 0."""
    s, total = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    e = np.ones(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, w.size - start)
        odds(logits[start : start + size], e)
        total[:] = 0
        for k in range(keys.shape[0]):
            soft(keys[k], b, e, s)
            row = grad[k, start : start + size]
            for i in range(size):
                z = s[i] * _STRETCH + _SHIFT
                slope = s[i] * (_ONE - s[i]) if (z > _ZERO and z < _ONE) else _ZERO
                total[i] += row[i] * slope
        weight, result = w[start : start + size], out[start : start + size]
        for i in range(size):
            result[i] = total[i] * weight[i] * _SLOPE


@compiled
def pull_back_concrete_weights(keys, first, last, logits, binary, grad, out):  # type: ignore[no-untyped-def]
    """Write the weights' gradient into `out` (N,): that of every sample times its mask."""
    s, total = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    e = np.ones(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, logits.size - start)
        odds(logits[start : start + size], e)
        total[:] = 0
        for k in range(keys.shape[0]):
            soft(keys[k], b, e, s)
            row = grad[k, start : start + size]
            for i in range(size):
                z = min(_ONE, max(_ZERO, s[i] * _STRETCH + _SHIFT))
                if binary[0]:
                    z = _ONE if s[i] > _HALF else _ZERO
                total[i] += row[i] * z
        out[start : start + size] = total[:size]


@spread
def sample_concrete_spread(keys, threads, w, logits, binary, out):  # type: ignore[no-untyped-def]
    """Do `sample_concrete` for all blocks, on several threads."""
    blocks = -(-w.size // BLOCK)
    for t in numba.prange(threads):
        sample_concrete(keys, blocks * t // threads, blocks * (t + 1) // threads, w, logits, binary, out)


@spread
def pull_back_concrete_spread(keys, threads, w, logits, grad, out):  # type: ignore[no-untyped-def]
    """Do `pull_back_concrete` for all blocks, on several threads."""
    blocks = -(-w.size // BLOCK)
    for t in numba.prange(threads):
        pull_back_concrete(keys, blocks * t // threads, blocks * (t + 1) // threads, w, logits, grad, out)


@spread
def pull_back_concrete_weights_spread(keys, threads, logits, binary, grad, out):  # type: ignore[no-untyped-def]
    """Do `pull_back_concrete_weights` for all blocks, on several threads."""
    blocks = -(-logits.size // BLOCK)
    for t in numba.prange(threads):
        pull_back_concrete_weights(keys, blocks * t // threads, blocks * (t + 1) // threads, logits, binary, grad, out)


register(sample_concrete, sample_concrete_spread)
register(pull_back_concrete, pull_back_concrete_spread)
register(pull_back_concrete_weights, pull_back_concrete_weights_spread)


def flag(value: bool) -> Any:
    """Return a truth value as the array that kernels take."""
    return np.array([value])
