"""What a mask step cannot go below: the bytes that it must move and the numbers that it must draw, at this machine's own speeds.

    python tests/benchmarks/floor.py [network ...]

Of W masked weights, K of each, a mask step with nothing fused must write the K masked copies, read them in the forward and in the
backward products, write K gradients and read them again: 5 K W numbers. It reads weights and logits to sample and to form the
gradient (4 W), writes that (W), adds the pull (2 W), takes the norm (W), clips (2 W), and Adam reads four numbers and writes three
(7 W). A plain step reads its weights twice, writes their gradients and runs Adam: 10 W. The products are the same in both: those
of K groups of B / K items are as many as those of B items. Noise is drawn twice, once forward and once backward, K W numbers each.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from measure import best, busy, interleaved
from networks import CASES, Case
from steps import plain
from torch.utils.flop_counter import FlopCounterMode

from modhook.noise.kernels import pull_back, run, sample

SAMPLES = 4


def speeds(tries: int = 40) -> dict[str, float]:
    """Return bytes per second of a copy too large for any cache, FLOPs per second of products, numbers per second of noise."""
    one, other = torch.ones(2**25), torch.zeros(2**25)  # 128 MB each
    x, w = torch.randn(128, 2000), torch.randn(2000, 2000)
    keys, size = np.arange(2 * SAMPLES, dtype=np.uint32).reshape(-1, 2), 2**16  # what it writes fits into a cache
    weights, logits, out = np.ones(size, np.float32), np.full(size, 2, np.float32), np.ones((SAMPLES, size), np.float32)
    threads = torch.get_num_threads()

    def noise() -> None:
        run(sample, keys, weights, logits, out, threads=threads)
        run(pull_back, keys, weights, logits, out, np.empty_like(weights), threads=threads)

    return {
        "bytes": 2 * 4 * one.numel() / best(lambda: one.copy_(other), tries),
        "flops": 2 * x.shape[0] * w.numel() / best(lambda: x @ w.T, tries),
        "numbers": SAMPLES * size / best(noise, tries),
    }


def measure(case: Case, speed: dict[str, float], seconds: float, plain_ms: float | None = None) -> dict[str, float]:
    """Return W, FLOPs of a step, a plain step's milliseconds (measured, unless given), and the least that masks add, in plain steps."""
    torch.manual_seed(0)
    model = case.make().eval()
    batch = case.batch(case.size)
    weights = sum(p.numel() for n, p in model.named_parameters() if "bias" not in n)
    milliseconds = plain_ms or interleaved({"plain": plain(case, model, batch)}, seconds)["plain"]
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:  # type: ignore[no-untyped-call]
        case.loss(model, batch).backward()
    moved = 4 * weights * ((5 * SAMPLES + 17) - 10)
    memory, noise = 1e3 * moved / speed["bytes"], 1e3 * SAMPLES * weights / speed["numbers"]
    return {
        "weights": weights,
        "flops": counter.get_total_flops(),
        "plain": milliseconds,
        "products": 1e3 * counter.get_total_flops() / speed["flops"],
        "moved": moved,
        "memory": memory,
        "noise": noise,
        "at once": 1 + max(memory, noise) / milliseconds,
        "in turn": 1 + (memory + noise) / milliseconds,
    }


def row(name: str, found: dict[str, float]) -> dict[str, str]:
    """Return a line of the table."""
    return {
        "network": name,
        "masked weights": f"{found['weights'] / 1e6:.2f} M",
        "plain ms": f"{found['plain']:.1f}",
        "of it products": f"{found['products']:.1f}",
        "bytes more": f"{found['moved'] / 1e6:.0f} MB",
        "their ms": f"{found['memory']:.1f}",
        "noise ms": f"{found['noise']:.1f}",
        "floor, at once": f"{found['at once']:.2f}",
        "in turn": f"{found['in turn']:.2f}",
    }


def said(speed: dict[str, float]) -> str:
    """Return the machine's speeds in words."""
    return (
        f"{speed['bytes'] / 1e9:.0f} GB/s of memory, {speed['flops'] / 1e9:.0f} GFLOP/s of products, "
        f"{speed['numbers'] / 1e9:.2f} numbers per ns of noise, drawn twice"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(CASES)}; all, if none is given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="CPU time of one thread: for a machine with other work")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.busy:
        busy()
    speed = speeds()
    print(said(speed))
    for name in options.networks or CASES:
        print("  ".join(f"{key} {cell}" for key, cell in row(name, measure(CASES[name], speed, 3)).items()), flush=True)


if __name__ == "__main__":
    main()
