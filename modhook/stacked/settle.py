"""Chooses the route of one kind of call: the first of vmap, islands and loop that the canary admits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.stacked import canary
from modhook.stacked.islands import innermost
from modhook.stacked.routes import Function, Job, run_loop, run_vmap
from modhook.stacked.trees import Tree, flatten

CANARY_SAMPLES = 2
_ATTEMPTS = 24


@attrs.frozen
class Choice:
    """The route for one kind of call, why, the submodules that loop within it, and what the model writes in it.

    `error` is the canary's: the largest difference of an output or gradient, relative to its largest number.
    """

    route: str
    reason: str
    written: frozenset[str] = frozenset()
    islands: tuple[str, ...] = ()
    island_reasons: dict[str, str] = attrs.field(factory=dict)
    error: float = 0.0


def settle(
    model: nn.Module, function: Function, names: tuple[str, ...], arguments: Tree, samples: int, executor: str
) -> Choice:
    """Run the canary on two samples of these arguments, (K, ...) or shared, and choose.

    Raises:
        StackError: no route reproduces a plain run, or not the one that `executor` asks for.
        Exception: whatever the user's own code raises in a plain run.
    """
    arguments = arguments.with_tensors([leaf.tensor.detach() for leaf in arguments.leaves])
    few = arguments.with_tensors([leaf.tensor if leaf.shared else _few(leaf.tensor) for leaf in arguments.leaves])
    sets = canary.perturbed(model, names, CANARY_SAMPLES)
    expected = canary.quietly(model, lambda: canary.reference(model, function, few, sets))
    job = Job(model, function, sets, few, CANARY_SAMPLES, expected.written)

    def check(route: Callable[..., Any], islands: tuple[str, ...] = ()) -> canary.Finding:
        there = attrs.evolve(job, islands=islands)
        found: canary.Finding = canary.quietly(model, lambda: canary.compare(route, there, expected))
        return found

    reason = "the loop was asked for"
    if executor != "loop":
        choice, reason = _vectorised(model, check, expected.written, executor)
        if choice is not None and executor == "fastest":
            whole = attrs.evolve(job, arguments=arguments, samples=samples, parameters={}, islands=choice.islands)
            choice = _faster(whole, canary.perturbed(model, names, samples), choice)
        if choice is not None:
            return choice
    looped = check(run_loop)
    if looped.text:
        raise StackError(_refusal(model, looped.text))
    return Choice("loop", reason, expected.written, error=looped.worst)


def _vectorised(
    model: nn.Module, check: Callable[..., canary.Finding], written: frozenset[str], executor: str
) -> tuple[Choice | None, str]:
    """Return the vmap route, if need be with islands, or None and why not."""
    reasons: dict[str, str] = {}
    text = ""
    for _ in range(_ATTEMPTS):
        found = check(run_vmap, tuple(reasons))
        if not found.text and not reasons:
            return Choice("vmap", "vmap agrees with a plain run of the model", written, error=found.worst), ""
        if not found.text:
            reason = "vmap agrees with a plain run of the model, with these submodules looped: " + ", ".join(reasons)
            return Choice("islands", reason, written, tuple(reasons), reasons, found.worst), ""
        text = text or found.text
        if executor == "vmap":
            raise StackError(f'executor="vmap" cannot run this model exactly: {text}. Use executor="auto"')
        failed = innermost(model, found.error) if found.error else []
        new = next((name for name in failed if name not in reasons), "")
        if not new:
            break
        # An island inside the new one is no longer needed.
        reasons = {name: why for name, why in reasons.items() if not name.startswith(f"{new}.")}
        reasons[new] = found.text
    return None, f"vmap was not admitted: {text}"


def _faster(job: Job, sets: dict[str, Tensor], choice: Choice) -> Choice:
    """Time a forward and a backward pass of the admitted route and of the loop, and keep the faster one."""

    def once(route: Callable[..., Any]) -> float:
        leaves = {name: value.clone().requires_grad_() for name, value in sets.items()}
        start = time.perf_counter()
        with torch.enable_grad():
            outputs = [leaf.tensor for leaf in flatten(route(attrs.evolve(job, parameters=leaves))).leaves]
            sum(o.sum() for o in outputs if o.requires_grad).backward()  # type: ignore[union-attr]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def times() -> tuple[float, float]:
        pairs = [(once(run_vmap), once(run_loop)) for _ in range(4)][1:]
        return min(v for v, _ in pairs), min(s for _, s in pairs)

    stacked, looped = canary.quietly(job.model, times)
    measured = f"{choice.route} took {1e3 * stacked:.1f} ms and the loop {1e3 * looped:.1f} ms"
    if looped < stacked:
        reason = f"the loop was measured to be faster: {measured}"
        return Choice("loop", reason, choice.written, error=choice.error)
    return attrs.evolve(choice, reason=f"{choice.reason}; {measured}")


def _refusal(model: nn.Module, wrong: str) -> str:
    """Say why no route is exact, naming a parameter that is kept where it cannot be replaced."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            if key.startswith("_"):
                continue
            inside = list(value.values()) if isinstance(value, dict) else value
            held = inside if isinstance(inside, (list, tuple)) else [inside]
            for item in held:
                if id(item) in names:
                    where = f"submodule {prefix!r}" if prefix else "the model"
                    return (
                        f"{where} reads parameter {names[id(item)]!r} from its attribute {key!r}, where it cannot be "
                        f"replaced: read it from where it is registered, or keep it in an nn.ParameterList ({wrong})"
                    )
    return (
        f"the model cannot be run exactly under other weights: {wrong}. It may read a weight from somewhere else than "
        "the module that registers it"
    )


def _few(tensor: Tensor) -> Tensor:
    """Return the first samples of a stacked tensor, as many as the canary runs: (2, ...)."""
    return tensor[:CANARY_SAMPLES] if tensor.shape[0] >= CANARY_SAMPLES else tensor[[0] * CANARY_SAMPLES]
