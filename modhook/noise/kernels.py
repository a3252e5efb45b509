"""Noise and masks in one pass over the weights, compiled for CPU: numbers are never stored, only drawn twice.

The numbers are those of Philox4x32-7, the counter-based generator of Salmon et al. (SC 2011): a block of 1,024 depends on a
key and the block's number alone, so that blocks can be drawn in any order, by any thread, and again in the backward pass.

The masks are the paper's (section 2): with q = 1 - sigmoid(l) and u uniform a weight is kept where u > q, and the slope of
the soft sample is p q u (1 - u) / (p u + q (1 - u))^2, p = sigmoid(l).

Loops run over slices that begin at 0: indices that may be negative, as far as the compiler knows, are done one by one, at half the speed.

All in one file, because the compiler's cache does not notice a change in another one.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import torch
from numba.core import caching

ROUNDS = 7
"""The fewest that pass the test battery BigCrush, says the paper."""
LANES = 256
BLOCK = 4 * LANES
"""Numbers per block."""
FOUR = 4
"""Samples that are done in one pass over a block's probabilities, where there are as many: memory is asked for the next rows earlier."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_SHIFT, _UNIT = np.uint32(8), np.float32(2.0**-24)


class _Kept(caching.FunctionCache):
    """Machine code on disk; where the disk refuses, it is compiled again in every process, and nothing else is different."""

    options: tuple[str, ...] = ()
    """Names of what it is compiled with beside the usual."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Return what the code of one signature is found by: numba leaves out that a function is compiled for several threads, too."""
        return (*super()._index_key(sig, codegen), self.options)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code of one signature, or None where it cannot be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a file that was cut off, of another user, on a disk that is gone
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the code of one signature, where that is possible."""
        with contextlib.suppress(OSError):
            try:
                super().save_overload(sig, data)
            except (EOFError, ValueError, pickle.PickleError):  # the list of what is kept is damaged: begin another
                self.flush()
                super().save_overload(sig, data)


def _compiler(**options: Any) -> Callable[[Callable[..., None]], Any]:
    def compile_(function: Callable[..., None]) -> Any:
        made = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, **options)(function)
        with contextlib.suppress(RuntimeError, OSError):  # no folder that can be written: a container without a home
            kept = _Kept(function)
            kept.options = tuple(options)
            made._cache = kept
        return made

    return compile_


compiled = _compiler()
"""Compiles a function; the machine code is kept for the next process, where there is a place for it."""
spread = _compiler(parallel=True)
"""Compiles a function whose `prange` runs on several threads: OpenMP's where there are such, which torch's are too."""

_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAST, _MOST = np.float32(-80), np.float32(41)  # beyond, q is 1, or its square is no normal float32
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
# 1 / k!, highest first: the Taylor series of exp on |x| <= ln 2 / 2, exact to a float32's last bit or two.
_SERIES = tuple(np.float32(x) for x in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0))


@compiled
def draw_block(key, number, out):  # type: ignore[no-untyped-def]
    """Write block `number` of the stream `key` (two uint32) into `out` (BLOCK,): float32 in [0, 1), multiples of 2^-24."""
    b = np.uint64(number)
    low, high = np.uint32(b & _LOW), np.uint32(b >> _HALF)
    for j in range(LANES):
        c0, c1, c2, c3 = np.uint32(j), low, high, np.uint32(0)
        k0, k1 = key[0], key[1]
        for _ in range(ROUNDS):
            a, d = _M0 * np.uint64(c0), _M1 * np.uint64(c2)
            c0, c1, c2, c3 = (
                np.uint32(d >> _HALF) ^ c1 ^ k0,
                np.uint32(d),
                np.uint32(a >> _HALF) ^ c3 ^ k1,
                np.uint32(a),
            )
            k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
        out[j] = np.float32(np.int32(c0 >> _SHIFT)) * _UNIT
        out[LANES + j] = np.float32(np.int32(c1 >> _SHIFT)) * _UNIT
        out[2 * LANES + j] = np.float32(np.int32(c2 >> _SHIFT)) * _UNIT
        out[3 * LANES + j] = np.float32(np.int32(c3 >> _SHIFT)) * _UNIT


@compiled
def fill(keys, first, last, out):  # type: ignore[no-untyped-def]
    """Write blocks first..last of every stream into the rows of `out` (K, N)."""
    numbers = np.empty(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        stop = min(start + BLOCK, out.shape[1])
        for k in range(keys.shape[0]):
            draw_block(keys[k], b, numbers)
            out[k, start:stop] = numbers[: stop - start]


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, inline="always")
def exponential(x):  # type: ignore[no-untyped-def]
    """Return exp(x) for -87 < x < 88, written so that the compiler does many at once, which a call of exp prevents."""
    n = np.int32(np.floor(x * _LOG2E + np.float32(0.5)))
    f = np.float32(n)
    r = x - f * _LN2_HIGH - f * _LN2_LOW
    e = _SERIES[0]
    e = e * r + _SERIES[1]
    e = e * r + _SERIES[2]
    e = e * r + _SERIES[3]
    e = e * r + _SERIES[4]
    e = e * r + _SERIES[5]
    e = e * r + _SERIES[6]
    e = e * r + _SERIES[7]
    return e * np.int32((n + _BIAS) << _MANTISSA).view(np.float32)  # times 2^n


@compiled
def probabilities(logits, p, q):  # type: ignore[no-untyped-def]
    """Write p = sigmoid(l) and q = 1 - p, both to float32's precision."""
    for i in range(logits.size):
        e = exponential(min(max(logits[i], _LEAST), _MOST))
        q[i] = _ONE / (_ONE + e)
        p[i] = e * q[i]


@compiled
def sample(keys, first, last, w, logits, out):  # type: ignore[no-untyped-def]
    """Write W under one mask per key into `out` (K, N), for blocks first..last of w and logits (N,)."""
    u, p, q = np.empty((FOUR, BLOCK), np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
    whole = keys.shape[0] - keys.shape[0] % FOUR
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, w.size - start)
        weight = w[start : start + size]
        probabilities(logits[start : start + size], p, q)
        for k in range(0, whole, FOUR):
            for j in range(FOUR):
                draw_block(keys[k + j], b, u[j])
            r0, r1 = out[k, start : start + size], out[k + 1, start : start + size]
            r2, r3 = out[k + 2, start : start + size], out[k + 3, start : start + size]
            for i in range(size):
                r0[i] = weight[i] if u0[i] > q[i] else _ZERO
                r1[i] = weight[i] if u1[i] > q[i] else _ZERO
                r2[i] = weight[i] if u2[i] > q[i] else _ZERO
                r3[i] = weight[i] if u3[i] > q[i] else _ZERO
        for k in range(whole, keys.shape[0]):
            draw_block(keys[k], b, u0)
            row = out[k, start : start + size]
            for i in range(size):
                row[i] = weight[i] if u0[i] > q[i] else _ZERO


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, inline="always")
def _slope(u, p, q):  # type: ignore[no-untyped-def]
    """Return the slope of the soft sample over p q."""
    rest = _ONE - u
    base = p * u + q * rest
    return u * rest / (base * base)


@compiled
def pull_back(keys, first, last, w, logits, grad, out):  # type: ignore[no-untyped-def]
    """Write the logits' gradient into `out` (N,), given the gradient (K, N) of what `sample` wrote for the same keys."""
    u, p, q = np.empty((FOUR, BLOCK), np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
    total = np.empty(BLOCK, np.float32)
    whole = keys.shape[0] - keys.shape[0] % FOUR
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, w.size - start)
        probabilities(logits[start : start + size], p, q)
        total[:] = 0
        for k in range(0, whole, FOUR):
            for j in range(FOUR):
                draw_block(keys[k + j], b, u[j])
            r0, r1 = grad[k, start : start + size], grad[k + 1, start : start + size]
            r2, r3 = grad[k + 2, start : start + size], grad[k + 3, start : start + size]
            for i in range(size):
                t = total[i]
                t += r0[i] * _slope(u0[i], p[i], q[i])
                t += r1[i] * _slope(u1[i], p[i], q[i])
                t += r2[i] * _slope(u2[i], p[i], q[i])
                t += r3[i] * _slope(u3[i], p[i], q[i])
                total[i] = t
        for k in range(whole, keys.shape[0]):
            draw_block(keys[k], b, u0)
            row = grad[k, start : start + size]
            for i in range(size):
                total[i] += row[i] * _slope(u0[i], p[i], q[i])
        weight, result = w[start : start + size], out[start : start + size]
        for i in range(size):
            result[i] = total[i] * weight[i] * p[i] * q[i]


@compiled
def pull_back_weights(keys, first, last, logits, grad, out):  # type: ignore[no-untyped-def]
    """Write the weights' gradient into `out` (N,): that of the samples in which the weight was kept."""
    u, p, q = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, logits.size - start)
        probabilities(logits[start : start + size], p, q)
        total[:] = 0
        for k in range(keys.shape[0]):
            draw_block(keys[k], b, u)
            row = grad[k, start : start + size]
            for i in range(size):
                total[i] += row[i] if u[i] > q[i] else _ZERO
        out[start : start + size] = total[:size]


@compiled
def pull_back_both(keys, first, last, w, logits, grad, to_weights, out):  # type: ignore[no-untyped-def]
    """Do `pull_back_weights` into `to_weights` and `pull_back` into `out`, (N,) each, drawing the numbers once."""
    u, p, q = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total, kept = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for b in range(first, last):
        start = b * BLOCK
        size = min(BLOCK, w.size - start)
        probabilities(logits[start : start + size], p, q)
        total[:] = 0
        kept[:] = 0
        for k in range(keys.shape[0]):
            draw_block(keys[k], b, u)
            row = grad[k, start : start + size]
            for i in range(size):
                kept[i] += row[i] if u[i] > q[i] else _ZERO
            for i in range(size):
                total[i] += row[i] * _slope(u[i], p[i], q[i])
        to_weights[start : start + size] = kept[:size]
        weight, result = w[start : start + size], out[start : start + size]
        for i in range(size):
            result[i] = total[i] * weight[i] * p[i] * q[i]


@spread
def fill_spread(keys, threads, out):  # type: ignore[no-untyped-def]
    """Do `fill` for all blocks, on several threads."""
    blocks = -(-out.shape[1] // BLOCK)
    for t in numba.prange(threads):
        fill(keys, blocks * t // threads, blocks * (t + 1) // threads, out)


@spread
def sample_spread(keys, threads, w, logits, out):  # type: ignore[no-untyped-def]
    """Do `sample` for all blocks, on several threads."""
    blocks = -(-w.size // BLOCK)
    for t in numba.prange(threads):
        sample(keys, blocks * t // threads, blocks * (t + 1) // threads, w, logits, out)


@spread
def pull_back_spread(keys, threads, w, logits, grad, out):  # type: ignore[no-untyped-def]
    """Do `pull_back` for all blocks, on several threads."""
    blocks = -(-w.size // BLOCK)
    for t in numba.prange(threads):
        pull_back(keys, blocks * t // threads, blocks * (t + 1) // threads, w, logits, grad, out)


@spread
def pull_back_weights_spread(keys, threads, logits, grad, out):  # type: ignore[no-untyped-def]
    """Do `pull_back_weights` for all blocks, on several threads."""
    blocks = -(-logits.size // BLOCK)
    for t in numba.prange(threads):
        pull_back_weights(keys, blocks * t // threads, blocks * (t + 1) // threads, logits, grad, out)


@spread
def pull_back_both_spread(keys, threads, w, logits, grad, to_weights, out):  # type: ignore[no-untyped-def]
    """Do `pull_back_both` for all blocks, on several threads."""
    blocks = -(-w.size // BLOCK)
    for t in numba.prange(threads):
        pull_back_both(keys, blocks * t // threads, blocks * (t + 1) // threads, w, logits, grad, to_weights, out)


_SPREAD: dict[Any, Callable[..., None]] = {
    fill: fill_spread,
    sample: sample_spread,
    pull_back: pull_back_spread,
    pull_back_weights: pull_back_weights_spread,
    pull_back_both: pull_back_both_spread,
}


def register(kernel: Callable[..., None], on_threads: Callable[..., None]) -> None:
    """Tell `run` which `spread` function does a kernel's work on several threads."""
    _SPREAD[kernel] = on_threads


_CPUS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
# Below this many numbers, waking the threads costs more than the work.
_SPREAD_FROM = 1 << 17
# Not every kind of thread that numba knows may be started from two threads at once.
_one = threading.Lock()
_state = {"forked": False}
# A child of fork must not use the parent's OpenMP threads, which it does not have.
if hasattr(os, "register_at_fork"):  # a system that cannot fork has no such child
    os.register_at_fork(after_in_child=lambda: _state.update(forked=True))


def run(kernel: Callable[..., None], keys: Any, *arrays: Any, threads: int) -> None:
    """Run a kernel for all blocks of its arrays; the result does not depend on `threads`."""
    size = arrays[-1].shape[-1]
    with as_many(threads if size * len(keys) >= _SPREAD_FROM else 1) as count:
        if count == 1:
            kernel(keys, 0, -(-size // BLOCK), *arrays)
        else:
            _SPREAD[kernel](keys, count, *arrays)


@contextmanager
def same_threads() -> Iterator[None]:
    """Put torch's number of threads back: when numba starts its own it sets OpenMP's number, which is torch's too."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def alone(threads: int) -> bool:
    """Return whether kernels must, or are asked to, run on the calling thread only."""
    return threads == 1 or _CPUS == 1 or _state["forked"]


@contextmanager
def on_threads(threads: int) -> Iterator[int]:
    """Let `spread` kernels use that many threads, as far as the machine has them; gives their number."""
    count = min(threads, _CPUS)
    with _one:
        numba.set_num_threads(count)
        yield count


@contextmanager
def as_many(threads: int) -> Iterator[int]:
    """Let `spread` kernels use up to that many threads; gives their number, or 1 where those of one thread must do the work."""
    with same_threads():
        if alone(threads):
            yield 1
        else:
            with on_threads(threads) as count:
                yield count
