"""What comes before and beside the steps, in plain steps of the same process: `python tests/benchmarks/startup.py [--threads 2]`.

Networks of 20 million weights, FNN and Transformer. Start-up is the time of `fit_masks` up to the end of its first step, less a later
step; `inspect` is the whole call. `evaluate` is a pass over 20 batches under a mask, in plain forward passes over the same batches.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import torch
from networks import CASES, Case, fnn
from steps import plain
from torch import Tensor, nn
from torch.nn import functional as F

import modhook

SAMPLES, WORDS = 4, 4000


class Language(nn.Module):
    """A GPT-2-like network out of stock layers: d 512, 8 heads, 6 layers, feed-forward 2048, a head of its own; 23 million weights."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(512, 8, 2048, 0.0, "gelu", batch_first=True, norm_first=True)
        self.words, self.places = nn.Embedding(WORDS, 512), nn.Embedding(64, 512)
        self.body, self.out = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(512, WORDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, WORDS) for tokens (B, T)."""
        steps = torch.arange(x.shape[1], device=x.device)
        later = torch.ones(len(steps), len(steps), dtype=torch.bool, device=x.device).triu(1)  # (T, T)
        return self.out(self.body(self.words(x) + self.places(steps), mask=later))


def _next(net: Callable[..., Tensor], batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0])[:, :-1].flatten(0, 1), batch[0][:, 1:].flatten())


LARGE = {
    "fnn-2580x4": attrs.evolve(CASES["fnn-2000x4"], name="fnn-2580x4", make=lambda: fnn(42, [2580] * 4, 20)),
    "language": Case("language", Language, lambda n: (torch.randint(0, WORDS, (n, 64)),), _next, 8, 0.0),
}


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return medians of `rounds` in plain steps: start-up, the first step with it, inspect, and the end of a fit."""
    torch.manual_seed(0)
    model, batch = case.make().eval(), case.batch(case.size)
    step = plain(case, model, batch)
    found: dict[str, list[float]] = {"plain ms": [], "start-up": [], "end": [], "inspect": []}
    for i in range(rounds + 1):
        begun = clock()
        for _ in range(3):
            step()
        one = (clock() - begun) / 3
        times = [clock()]
        # 20 steps make a record of each: three without one, so that a step is a step
        modhook.fit_masks(
            model, [batch], case.loss, samples=SAMPLES, steps=3, sampler="gumbel", progress=False,
            callback=lambda *_, times=times: times.append(clock()),
        )  # fmt: skip
        times.append(clock())
        first, second, end = times[1] - times[0], times[2] - times[1], times[4] - times[3]
        begun = clock()
        modhook.inspect(model, *batch[:1], samples=SAMPLES, progress=False)
        values = (1e3 * one, (first - second) / one, end / one, (clock() - begun) / one)
        for name, value in zip(found, values, strict=True):
            if i:  # the first round compiles
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def evaluated(case: Case, rounds: int, clock: Callable[[], float]) -> float:
    """Return the median time of `evaluate` over 20 batches with one mask, in plain forward passes over them."""
    torch.manual_seed(0)
    model, batches = case.make().eval(), [case.batch(case.size)] * 20
    masks = modhook.Masks({n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters() if "bias" not in n}, model)
    inputs = 2 if case.name == "transformer" else 1

    def score(net: Any, batch: Any) -> Tensor:
        return net(*batch[:inputs]).flatten(1).amax(1)  # (B,)

    def bare() -> None:
        total = 0.0
        with torch.no_grad():
            for batch in batches:
                total += float(score(model, batch).double().sum())

    def timed(run: Callable[[], Any]) -> float:
        begun = clock()
        run()
        return clock() - begun

    pairs = [(timed(lambda: modhook.evaluate(model, masks, batches, score)), timed(bare)) for _ in range(rounds + 1)][1:]
    return statistics.median(masked / alone for masked, alone in pairs)


def main() -> None:
    """Measure and print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="CPU time of the process: for a machine with other work")
    parser.add_argument("--only", choices=("large", "evaluate"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    clock = time.process_time if options.busy else time.perf_counter
    for name, case in LARGE.items() if options.only != "evaluate" else ():
        weights = sum(p.numel() for p in case.make().parameters()) / 1e6
        values = measure(case, options.rounds, clock)
        print(f"{name} ({weights:.1f} M)  " + "  ".join(f"{what} {value:.2f}" for what, value in values.items()), flush=True)
    for name, case in CASES.items() if options.only != "large" else ():
        print(f"{name}  evaluate {evaluated(case, options.rounds, clock):.3f}", flush=True)


if __name__ == "__main__":
    main()
