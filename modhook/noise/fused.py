"""The paper's masks on a GPU, in Triton: noise, mask and product in one pass over the weights, all gradients in another.

Nothing of size K is stored but the masked weights themselves. The noise is that of `kernels`, Philox4x32-7 (Salmon et al., SC 2011),
number by number: for sample k and weight n of a tensor, with b = n // 1024, r = n % 1024 and j = r % 256, it is the upper 24 bits
of word r // 256 of the block with key (low, high half of sample k's key) and counter (j, b, draw >> 32, draw). On a GPU the key is the
seed of the sample's generator and `draw` is how often it was drawn from, which is the generator's own offset: it is in every
checkpoint with the generator's state, so that a stopped stage goes on with the same numbers. A generator of the CPU gives a new key
for every draw, as for `kernels`, and draw is 0.

The masks and gradients are those of the sampler `gumbel`: kept where u > q = 1 - sigmoid(l); the slope of the soft sample is
p q u (1 - u) / (p u + q (1 - u))^2 at temperature 1, s (1 - s) / tau with s = sigmoid((l + log u - log(1 - u)) / tau) at others.

Importing this module needs triton. With TRITON_INTERPRET=1 in the environment it runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from modhook.noise.noise import keys

BLOCK = 1024
"""Weights per program, as in `kernels`: four words of 256 counters."""


@triton.jit
def _philox(lane, block, late, draw, k0, k1):  # type: ignore[no-untyped-def]
    """Return the four words of counters (lane, block, late, draw) under a key."""
    c0, c1, c2, c3 = lane, block, late, draw
    for _ in tl.static_range(7):
        a, d = tl.umulhi(c0, 0xD2511F53), tl.umulhi(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = d ^ c1 ^ k0, c2 * 0xCD9E8D57, a ^ c3 ^ k1, c0 * 0xD2511F53
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _words(streams, k, block, lane):  # type: ignore[no-untyped-def]
    """Return the four words of sample k's block."""
    k0 = tl.load(streams + 4 * k).to(tl.uint32, bitcast=True)
    k1 = tl.load(streams + 4 * k + 1).to(tl.uint32, bitcast=True)
    draw = tl.load(streams + 4 * k + 2).to(tl.uint32, bitcast=True)
    late = tl.load(streams + 4 * k + 3).to(tl.uint32, bitcast=True)
    zero = lane * 0
    return _philox(lane, zero + block, zero + late, zero + draw, k0, k1)


@triton.jit
def _unit(word):  # type: ignore[no-untyped-def]
    """Return a word as a number in [0, 1), a multiple of 2^-24."""
    return (word >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def _odds(logits, at, size):  # type: ignore[no-untyped-def]
    """Return l, p = sigmoid(l) and q = 1 - p at these places."""
    ell = tl.load(logits + at, mask=at < size, other=0.0)
    # A logit that is not a number must not look like a small one: its gradient says that something went wrong, as everywhere else.
    within = tl.maximum(ell, -80.0, propagate_nan=tl.PropagateNan.ALL)
    e = tl.exp(tl.minimum(within, 41.0, propagate_nan=tl.PropagateNan.ALL))
    q = 1.0 / (1.0 + e)
    return ell, e * q, q


@triton.jit
def _keep(word, w, q, out, at, size):  # type: ignore[no-untyped-def]
    """Write the weights that this word keeps, and zeros, also for weights that are not finite."""
    tl.store(out + at, tl.where(_unit(word) > q, w, 0.0), mask=at < size)


@triton.jit
def sample(streams, weights, logits, out, samples, size, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write W under one mask per stream into `out` (K, N), for one block of W and logits (N,)."""
    block = tl.program_id(0)
    lane = tl.arange(0, LANES)
    n0 = block.to(tl.int64) * (4 * LANES) + lane
    n1, n2, n3 = n0 + LANES, n0 + 2 * LANES, n0 + 3 * LANES
    w0 = tl.load(weights + n0, mask=n0 < size, other=0.0)
    w1 = tl.load(weights + n1, mask=n1 < size, other=0.0)
    w2 = tl.load(weights + n2, mask=n2 < size, other=0.0)
    w3 = tl.load(weights + n3, mask=n3 < size, other=0.0)
    _l0, _p0, q0 = _odds(logits, n0, size)
    _l1, _p1, q1 = _odds(logits, n1, size)
    _l2, _p2, q2 = _odds(logits, n2, size)
    _l3, _p3, q3 = _odds(logits, n3, size)
    row = out
    for k in range(samples):
        c0, c1, c2, c3 = _words(streams, k, block.to(tl.uint32), lane.to(tl.uint32))
        _keep(c0, w0, q0, row, n0, size)
        _keep(c1, w1, q1, row, n1, size)
        _keep(c2, w2, q2, row, n2, size)
        _keep(c3, w3, q3, row, n3, size)
        row += size


@triton.jit
def _slope(word, ell, p, q, tau, ONE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ds / dl of the soft sample; at temperature 1 without the factor p q."""
    u = _unit(word)
    if ONE:
        base = p * u + q * (1.0 - u)
        return u * (1.0 - u) / (base * base)
    x = tl.minimum(tl.maximum(u, 1.1920928955078125e-07), 1.0 - 1.1920928955078125e-07)
    # s (1 - s) = e / (1 + e)^2: 1 - s itself has no digits left where s is close to 1.
    e = tl.exp(-tl.abs(tl.log(1.0 - x) - tl.log(x) - ell) / tau)
    return e / ((1.0 + e) * (1.0 + e)) / tau


@triton.jit
def _pulled(total, kept, word, ell, p, q, grad, at, size, tau, ONE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return both sums with what one sample's gradient at these places adds."""
    g = tl.load(grad + at, mask=at < size, other=0.0).to(tl.float32)
    return total + g * _slope(word, ell, p, q, tau, ONE), kept + tl.where(_unit(word) > q, g, 0.0)


@triton.jit
def _give(  # type: ignore[no-untyped-def]
    total, kept, p, q, weights, to_logits, to_weights, at, size,
    ONE: tl.constexpr, LOGITS: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Write the gradients that are wanted."""
    if LOGITS:
        w = tl.load(weights + at, mask=at < size, other=0.0).to(tl.float32)
        total = total * w
        if ONE:
            total = total * p * q
        tl.store(to_logits + at, total, mask=at < size)
    if WEIGHTS:
        tl.store(to_weights + at, kept, mask=at < size)


@triton.jit
def pull_back(  # type: ignore[no-untyped-def]
    streams, weights, logits, grad, to_logits, to_weights, samples, size, tau,
    LANES: tl.constexpr, ONE: tl.constexpr, LOGITS: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of logits and weights (N,), given that of what `sample` wrote (K, N), for one block: summed over K."""
    block = tl.program_id(0)
    lane = tl.arange(0, LANES)
    n0 = block.to(tl.int64) * (4 * LANES) + lane
    n1, n2, n3 = n0 + LANES, n0 + 2 * LANES, n0 + 3 * LANES
    l0, p0, q0 = _odds(logits, n0, size)
    l1, p1, q1 = _odds(logits, n1, size)
    l2, p2, q2 = _odds(logits, n2, size)
    l3, p3, q3 = _odds(logits, n3, size)
    nothing = tl.zeros([LANES], tl.float32)
    t0, t1, t2, t3 = nothing, nothing, nothing, nothing
    s0, s1, s2, s3 = nothing, nothing, nothing, nothing
    row = grad
    for k in range(samples):
        c0, c1, c2, c3 = _words(streams, k, block.to(tl.uint32), lane.to(tl.uint32))
        t0, s0 = _pulled(t0, s0, c0, l0, p0, q0, row, n0, size, tau, ONE)
        t1, s1 = _pulled(t1, s1, c1, l1, p1, q1, row, n1, size, tau, ONE)
        t2, s2 = _pulled(t2, s2, c2, l2, p2, q2, row, n2, size, tau, ONE)
        t3, s3 = _pulled(t3, s3, c3, l3, p3, q3, row, n3, size, tau, ONE)
        row += size
    _give(t0, s0, p0, q0, weights, to_logits, to_weights, n0, size, ONE, LOGITS, WEIGHTS)
    _give(t1, s1, p1, q1, weights, to_logits, to_weights, n1, size, ONE, LOGITS, WEIGHTS)
    _give(t2, s2, p2, q2, weights, to_logits, to_weights, n2, size, ONE, LOGITS, WEIGHTS)
    _give(t3, s3, p3, q3, weights, to_logits, to_weights, n3, size, ONE, LOGITS, WEIGHTS)


INTERPRETED = not isinstance(sample, triton.JITFunction)
"""Whether kernels are interpreted, on the CPU."""


def streams(generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Draw one tensor's streams: key and number of the draw, (K, 4) int32 on the device. Each generator has been drawn from once more."""
    if any(g.device.type != "cuda" for g in generators):
        drawn = torch.from_numpy(keys(generators).view("int32").copy())  # (K, 2)
        return torch.cat([drawn, torch.zeros_like(drawn)], 1).to(device)
    drawn_from = []
    for generator in generators:
        offset = generator.get_offset()
        drawn_from.append((generator.initial_seed(), offset // 4))
        generator.set_offset(offset + 4)  # torch wants multiples of 4
    return counters(drawn_from).pin_memory().to(device, non_blocking=True)


def counters(draws: Sequence[tuple[int, int]]) -> Tensor:
    """Return streams of pairs (seed, number of the draw), 64 bits each: (K, 4) int32, lower halves first."""
    words = np.array([[n % 2**64 for n in pair] for pair in draws], dtype="<u8").view("<i4")
    return torch.from_numpy(words)


def masked(drawn: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """Return W under one mask per stream: (K, *weight.shape)."""
    out = torch.empty((len(drawn), *weight.shape), dtype=weight.dtype, device=weight.device)
    size = weight.numel()
    if out.numel():
        with _on(weight.device):
            sample[(triton.cdiv(size, BLOCK),)](
                drawn, _flat(weight), _flat(logits), out, len(drawn), size, LANES=BLOCK // 4
            )
    return out


def gradients(
    drawn: Tensor, weight: Tensor, logits: Tensor, grad: Tensor, temperature: float, *, of_weight: bool, of_logits: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of weight and logits that are wanted, given that of `masked`'s result (K, *weight.shape)."""
    to_weight, to_logits = (
        torch.empty(like.shape, dtype=like.dtype, device=like.device) if wanted else None
        for like, wanted in ((weight, of_weight), (logits, of_logits))
    )
    size = weight.numel()
    if size and (of_weight or of_logits):
        w, ell = _flat(weight), _flat(logits)  # (N,)
        given = (ell if to_logits is None else to_logits), (w if to_weight is None else to_weight)  # what is not wanted is not written
        with _on(weight.device):
            pull_back[(triton.cdiv(size, BLOCK),)](
                drawn, w, ell, _flat(grad), *given, len(drawn), size, float(temperature),
                LANES=BLOCK // 4, ONE=temperature == 1, LOGITS=of_logits, WEIGHTS=of_weight,
            )  # fmt: skip
    return to_weight, to_logits


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous()


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Triton runs on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
