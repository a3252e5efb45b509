"""The mask step of every sampler against that of `gumbel`, on the same network and batch, in one process and taking turns."""

from __future__ import annotations

import statistics
import sys

import torch
from measure import interleaved
from networks import Case
from steps import masked

from modhook.plugin.manager import plugins
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions

SAMPLES = 4
FUSED = "gumbel, fused"
"""On a GPU, `gumbel` with its kernels in Triton."""
SAMPLERS = ("gumbel", "hard_concrete", "continuous_sparsification", "top_k")
TARGET = 1.3
"""The ratio to gumbel's step that every sampler's must stay under."""


def measure(case: Case, device: str, seconds: float, least: int) -> dict[str, float]:
    """Return the median milliseconds of a mask step by sampler; the logits start where the sampler starts them."""
    torch.manual_seed(0)
    model = case.make().to(device).eval()
    batch = tuple(t.to(device) for t in case.batch(case.size))
    made = {name: plugins().load("samplers", name)() for name in SAMPLERS}
    if device.startswith("cuda"):
        made[FUSED] = Gumbel(GumbelOptions(kernel="triton"))
    steps = {name: masked(case, model, batch, SAMPLES, sampler=sampler) for name, sampler in made.items()}
    if FUSED in steps:
        try:
            steps[FUSED]()
        except Exception as error:  # a machine without a C compiler, which Triton needs: the others are measured all the same
            print(f"{FUSED} cannot be measured for {case.name}: {error}", file=sys.stderr)
            del steps[FUSED]
    return interleaved(steps, seconds, least)


def row(name: str, found: list[dict[str, float]]) -> dict[str, str]:
    """Return a line of the table: gumbel's milliseconds, and medians over processes of ratios within one."""
    line = {"network": name, "gumbel ms": f"{statistics.median(each['gumbel'] for each in found):.1f}"}
    for sampler in ratios(found):
        ratio = statistics.median(each[sampler] / each["gumbel"] for each in found)
        line[sampler] = f"{ratio:.2f}" + ("" if ratio <= TARGET else " (!)")
    return line


def ratios(found: list[dict[str, float]]) -> dict[str, list[float]]:
    """Return the ratios to gumbel's step of all processes, by sampler."""
    others = (*SAMPLERS[1:], *((FUSED,) if all(FUSED in each for each in found) else ()))
    return {sampler: [each[sampler] / each["gumbel"] for each in found] for sampler in others}
