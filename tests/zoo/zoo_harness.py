"""One case of the zoo under K parameter sets, and the independent reference: a plain loop that knows nothing of stacking."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.stacked import stack
from modhook.stacked.trees import flatten

K = 3
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


@attrs.frozen
class Case:
    """A module, an example of its input, and how to run it.

    `build` makes the module; `data` makes the (args, kwargs) of one plain call, different at every call. `dtype` is
    float64 except where an operation has none; `why` says which.
    """

    name: str
    group: str
    build: Callable[[], nn.Module]
    data: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    training: bool = False
    dtype: torch.dtype = torch.float64
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{'train' if self.training else 'eval'}"


@attrs.frozen
class Result:
    """What one case gave: the route, what looped, the largest relative errors, and whether vmap took a slow way."""

    name: str
    group: str
    mode: str
    dtype: str
    route: str
    islands: tuple[str, ...]
    output_error: float
    gradient_error: float
    slow: tuple[str, ...]
    tensors: int
    gradients: int
    why: str = ""

    @property
    def matches(self) -> bool:
        """Whether outputs and gradients are within the tolerance of the type."""
        return max(self.output_error, self.gradient_error) <= TOLERANCE[getattr(torch, self.dtype)]


def run(case: Case, executor: str = "auto") -> Result:
    """Run the case stacked and plainly, and compare."""
    torch.manual_seed(0)
    torch.set_default_dtype(case.dtype)
    try:
        return _run(case, executor)
    finally:
        torch.set_default_dtype(torch.float32)


def _run(case: Case, executor: str) -> Result:
    model = without_dropout(case.build().to(case.dtype)).train(case.training)
    calls = [case.data() for _ in range(K)]
    sets = _parameter_sets(model)
    before = _values(model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stacked = stack(model, example=calls[0], samples=K, executor=executor)
        args, kwargs = _stacked_call(calls)
        outputs = tensors_in(stacked(sets, *args, **kwargs))
        _total(outputs).backward()
    slow = tuple(sorted({str(w.message).split("batching rule for ")[-1].split(" ")[0] for w in told if _is_slow(w)}))
    assert before == _values(model), "the model has changed"
    gradients = [torch.zeros_like(s) if s.grad is None else s.grad for s in sets.values()]
    expected, wanted = reference(model, sets, calls)
    assert len(outputs) == len(expected)
    assert any(g.abs().max() > 0 for g in wanted), "no gradient flows: the case shows nothing"
    largest = max(g.abs().max().item() for g in wanted)
    # What is zero but for rounding, such as the gradient of a bias before batch norm, is measured against the largest.
    error = max((_error(g, w, 1e-4 * largest) for g, w in zip(gradients, wanted, strict=True)), default=0.0)
    return Result(
        name=case.name,
        group=case.group,
        mode="train" if case.training else "eval",
        dtype=str(case.dtype).removeprefix("torch."),
        route=stacked.route,
        islands=tuple(stacked.report()["islands"]),
        output_error=max(_error(o.detach(), e, 1e-30) for o, e in zip(outputs, expected, strict=True)),
        gradient_error=error,
        slow=slow,
        tensors=len(outputs),
        gradients=len(wanted),
        why=case.why or ("by the table of routes; vmap is exact too" if stacked.choice.vectorised else ""),
    )


def reference(
    model: nn.Module, sets: dict[str, Tensor], calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return stacked outputs, and stacked gradients in the order of `sets`, of plain runs of deep copies."""
    outputs, gradients = [], []
    for k, (args, kwargs) in enumerate(calls):
        twin = copy.deepcopy(model)
        own = dict(twin.named_parameters())
        with torch.no_grad():
            for name, values in sets.items():
                own[name].copy_(values[k])
        for parameter in own.values():
            parameter.requires_grad_(parameter.is_floating_point())
        found = tensors_in(twin(*args, **kwargs))
        _total(found).backward()
        gradients.append([torch.zeros_like(own[n]) if own[n].grad is None else own[n].grad for n in sets])
        outputs.append([o.detach() for o in found])
    stacked = ([torch.stack(list(c)) for c in zip(*part, strict=True)] for part in (outputs, gradients))
    first, second = stacked
    return first, second


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch every dropout of the model off, wherever it keeps its probability."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("drop" in name or (name == "p" and "Dropout" in type(module).__name__)):
                setattr(module, name, 0.0)
    return model


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in tuples, lists, dicts and plain objects, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        children = list(tree.values())
    elif isinstance(tree, (list, tuple)):
        children = list(tree)
    elif hasattr(tree, "__dict__") and not isinstance(tree, (nn.Module, type)) and not callable(tree):
        children = list(vars(tree).values())
    else:
        return []
    return [tensor for child in children for tensor in tensors_in(child)]


def _stacked_call(calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    trees = [flatten(call) for call in calls]
    columns = zip(*(tree.leaves for tree in trees), strict=True)
    args, kwargs = trees[0].rebuild([torch.stack([leaf.tensor for leaf in column]) for column in columns])
    return args, kwargs


def _parameter_sets(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    sets = {}
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            noise = torch.randn(K, *parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            scale = parameter.detach().abs().mean().clamp(0.01, 1.0)
            sets[name] = (parameter.detach() + 0.2 * scale * noise).requires_grad_()
    return sets


def _total(outputs: list[Tensor]) -> Tensor:
    """Return a fixed combination of all outputs that has a gradient."""
    parts = []
    for i, output in enumerate(outputs):
        if output.requires_grad:
            real = torch.view_as_real(output) if output.is_complex() else output
            parts.append((real * (1 + 0.1 * i)).sin().sum() + real.square().sum())
    return torch.stack(parts).sum()


def _error(found: Tensor, expected: Tensor, floor: float) -> float:
    """Return the largest difference relative to the largest expected number of the tensor."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert found.dtype == expected.dtype
    if expected.numel() == 0:
        return 0.0
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(found, expected) else float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    if bool(same.all()):
        return 0.0
    finite = expected[expected.isfinite()].abs()
    gap = (found - expected).abs()[~same].max().item()
    error = gap / max(finite.max().item() if finite.numel() else 0.0, floor)
    return float(error) if error == error else float("inf")


def _is_slow(warning: warnings.WarningMessage) -> bool:
    return "performance drop" in str(warning.message)


def _values(model: nn.Module) -> dict[str, Any]:
    """Return everything about the model's tensors and flags that must survive."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {
        n: (
            id(t),
            t._version,
            t.requires_grad,
            hash(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()),
        )
        for n, t in tensors.items()
    }
    return {**kept, "training": [m.training for m in model.modules()]}
