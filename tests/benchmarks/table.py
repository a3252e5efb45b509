"""The table: a mask step by each path, against a plain step of the same network and batch in the same process."""

from __future__ import annotations

import gc
import statistics
from typing import Any

import torch
from measure import interleaved, peak
from networks import CASES, Case
from steps import SimpleGumbel, masked, plain, sequential

SAMPLES = 4


def measure(case: Case, device: str, seconds: float, least: int) -> dict[str, Any]:
    """Return milliseconds of each path (medians of `least` rounds or more), the route of `auto`, and memory in bytes."""
    torch.manual_seed(0)
    model = case.make().to(device).eval()
    batch = tuple(t.to(device) for t in case.batch(case.size))
    steps = {
        "plain": plain(case, model, batch),
        "sequential": sequential(case, model, batch, SAMPLES),
        "loop": masked(case, model, batch, SAMPLES, "loop"),
        "auto": masked(case, model, batch, SAMPLES, "auto"),
        "fastest": masked(case, model, batch, SAMPLES, "fastest"),
        "simple": masked(case, model, batch, SAMPLES, "auto", SimpleGumbel(None)),
    }
    forced = _vmap(case, model, batch)
    if forced is not None:
        steps["vmap"] = forced
    times = interleaved(steps, seconds, least)
    trainer = steps["auto"].trainer  # type: ignore[attr-defined]
    weights = sum(logit.numel() for logit in trainer.logits.values())
    memory = {"plain": _extra(plain(case, model, batch), 0), "mask": _masked_extra(case, model, batch)}
    found = {
        "milliseconds": times,
        "route": trainer.stacked.route,
        "masked_weights": weights,
        "bytes": memory,
        "bound": 3 * SAMPLES * weights * 4,
        "target": case.target,
    }
    steps.clear()
    gc.collect()
    return found


def rows(results: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Return the table as text: medians over processes, in plain steps of the process that had the fastest ones."""
    head = ["network (batch, K = 4)", "plain ms", "auto", "least to most", "own", "must reach", "route", "vmap", "loop",
            "K passes", "simple", "auto / K passes", "auto / best", "fastest / best", "extra MB: plain", "mask", "3 K W"]  # fmt: skip
    lines = [head]
    for name, found in results.items():
        first = found[0]
        size = {k: f"{b / 1e6:.0f}" for k, b in {**first["bytes"], "bound": first["bound"]}.items()}
        plain = min(each["milliseconds"]["plain"] for each in found)
        auto = sorted(ratios(found, "auto", "plain"))
        own = [each["milliseconds"]["auto"] / each["milliseconds"]["plain"] for each in found]
        lines.append([
            f"{name} ({CASES[name].size})", f"{plain:.1f}", _median(found, "auto", "plain"), f"{auto[0]:.2f}-{auto[-1]:.2f}",
            f"{statistics.median(own):.2f}", f"{first['target']:.2f}", first["route"],
            *(_median(found, path, "plain") for path in ("vmap", "loop", "sequential", "simple")),
            *(_median(found, a, b) for a, b in (("auto", "sequential"), ("auto", "best"), ("fastest", "best"))),
            size["plain"], size["mask"], size["bound"],
        ])  # fmt: skip
    return lines


def _median(found: list[dict[str, Any]], path: str, other: str) -> str:
    values = ratios(found, path, other)
    return f"{statistics.median(values):.2f}" if values else "-"


def ratios(found: list[dict[str, Any]], path: str, other: str) -> list[float]:
    """Return time of `path` / time of `other` in each process that ran both; "best" is the faster of the forced routes.

    A plain step is that of the process in which it was fastest: where the allocator gives memory back in every step, it is slow.
    """
    times = [each["milliseconds"] for each in found]
    times = [{**t, "plain": min(t["plain"] for t in times)} for t in times]
    times = [{**t, "best": min(t[p] for p in ("vmap", "loop") if p in t)} for t in times]
    return [t[path] / t[other] for t in times if path in t]


def _vmap(case: Case, model: torch.nn.Module, batch: Any) -> Any:
    step = masked(case, model, batch, SAMPLES, "vmap")
    try:
        step()
    except Exception:  # forced vmap refuses what needs islands; the table shows a dash
        return None
    return step


def _extra(step: Any, held: int) -> int:
    """Return the peak beside gradients and optimiser state, which a first step has made and which stay."""
    return held + peak(step)


def _masked_extra(case: Case, model: torch.nn.Module, batch: Any) -> int:
    step = masked(case, model, batch, SAMPLES, "auto")
    step()
    step()
    trainer = step.trainer
    # Buffers that stay between steps count as well, but for those that hold the logits' gradients.
    held = sum(b.untyped_storage().nbytes() for found in trainer.workspace._buffers.values() for b in found)
    gradients = {logit.grad.untyped_storage().data_ptr(): logit.grad.untyped_storage().nbytes()
                 for logit in trainer.logits.values() if logit.grad is not None}  # fmt: skip
    kept = {b.data_ptr() for found in trainer.workspace._buffers.values() for b in found}
    return _extra(step, held - sum(size for where, size in gradients.items() if where in kept))
