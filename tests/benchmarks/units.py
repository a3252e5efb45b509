"""A mask step over units, by what `auto` takes and with masked copies of the weights, against a plain step in the same process."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from measure import interleaved
from networks import Case
from steps import BETA, LR, Step, plain
from table import ratios as in_steps

from modhook.fit.engine import MaskTrainer
from modhook.masks.granular import masked_by
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions

SAMPLES = 4
TARGET = 1.1
"""The ratio to a plain step that `auto` should stay under."""
KINDS = {
    "fnn-2000x4": ("neuron",),
    "fnn-800x4": ("neuron",),
    "lstm-2x256": ("neuron",),
    "cnn": ("channel",),
    "resnet-110": ("channel",),
    "transformer": ("neuron", "head"),
}


def units(case: Case, model: torch.nn.Module, batch: Any, executor: str) -> Step:
    """Return a step of mask training over the units of a network."""
    sampler = Gumbel(GumbelOptions())
    wanted = masked_by(model, list(KINDS[case.name]))
    parameters = dict(model.named_parameters())
    shapes = wanted.logit_shapes(parameters)
    trainer = MaskTrainer(
        model, case.loss, {n: torch.full_like(shapes[n], 2.0) for n in wanted.names}, sampler, samples=SAMPLES, lr=LR, beta=BETA,
        executor=executor, units=wanted.groups,
    )  # fmt: skip
    # As in a fit: else every step would look at the network's values anew.
    held = trainer.holding()
    held.__enter__()
    number = iter(range(10**9))
    step = lambda: trainer.step(next(number), batch)  # noqa: E731
    step.trainer, step.held = trainer, held  # type: ignore[attr-defined]
    return step


def measure(case: Case, device: str, seconds: float, least: int) -> dict[str, Any]:
    """Return milliseconds of a plain step and of mask steps over units (medians), and the route of `auto`."""
    torch.manual_seed(0)
    model = case.make().to(device).eval()
    batch = tuple(t.to(device) for t in case.batch(case.size))
    steps = {name: units(case, model, batch, name) for name in ("auto", "loop")}
    try:
        forced = units(case, model, batch, "vmap")
        forced()
        steps["vmap"] = forced
    except Exception:  # what needs islands
        pass
    times = interleaved({"plain": plain(case, model, batch), **steps}, seconds, least)
    return {"milliseconds": times, "route": steps["auto"].trainer.route()["route"]}  # type: ignore[attr-defined]


def row(name: str, found: list[dict[str, Any]]) -> dict[str, str]:
    """Return one row of the table: medians over processes, in plain steps of the process that had the fastest ones."""
    cells = {"network": name, "units": ", ".join(KINDS[name])}
    cells["plain ms"] = f"{min(each['milliseconds']['plain'] for each in found):.1f}"
    for path in ("auto", "vmap", "loop"):
        values = sorted(in_steps(found, path, "plain"))
        cells[path] = f"{statistics.median(values):.2f}" if values else "-"
        if path == "auto":
            cells["least to most"] = f"{values[0]:.2f}-{values[-1]:.2f}"
            cells["route"] = found[0]["route"]
    return cells


def ratios(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the ratio of `auto` in every process to the plain step of the one that had the fastest ones, as in the table."""
    return {"auto": in_steps(found, "auto", "plain")}
