"""`inspect`: what of a model can be masked, and how each part of it will run under stacked parameters."""

from __future__ import annotations

import copy
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.stacked import canary
from modhook.stacked.routes import Job, run_loop, run_vmap
from modhook.stacked.rules.mode import listener
from modhook.stacked.scope import parameter_names
from modhook.stacked.settle import Choice
from modhook.stacked.stacked import stack
from modhook.stacked.trees import Tree, flatten

_REPEATS = 3


@attrs.frozen
class ParameterReport:
    """One parameter. `tied` lists its other names; `maskable` is false for parameters that are no real numbers."""

    name: str
    shape: tuple[int, ...]
    count: int
    dtype: str
    trained: bool
    maskable: bool
    tied: tuple[str, ...]


@attrs.frozen
class SubmoduleReport:
    """How one submodule runs: `vmap`, `rule` (some of its operations by rules), `slow` (operations that vmap itself takes
    sample by sample), `island` (looped inside a vmapped whole) or `loop`; `detail` names the operations or the reason."""

    name: str
    type: str
    how: str
    detail: str


@attrs.frozen
class Report:
    """What `inspect` found.

    Attributes:
        route, reason: how the whole model runs and why.
        error: the canary's largest relative difference from a plain run, over outputs and gradients.
        milliseconds: one forward and backward pass, best of three: `unmasked` is the plain model on the example, the others
            run K samples of that size each.
        bytes: `parameters` is what one set of K weights takes; `saved` is what the chosen route keeps for its backward
            pass, beside the weights; `unmasked` is what the plain model keeps.
    """

    samples: int
    route: str
    reason: str
    error: float
    parameters: tuple[ParameterReport, ...]
    submodules: tuple[SubmoduleReport, ...]
    milliseconds: dict[str, float]
    bytes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers."""
        plain: dict[str, Any] = json.loads(self.to_json())
        return plain

    def to_json(self, indent: int | None = None) -> str:
        """Return the report as JSON."""
        return json.dumps(attrs.asdict(self), indent=indent)

    def __str__(self) -> str:
        count = sum(p.count for p in self.parameters if p.maskable)
        times = ", ".join(f"{name} {value:.1f} ms" for name, value in self.milliseconds.items())
        sizes = ", ".join(f"{name} {value / 2**20:.1f} MiB" for name, value in self.bytes.items())
        head = [
            f"route: {self.route} ({self.reason})",
            f"{count:,} maskable weights in {sum(p.maskable for p in self.parameters)} parameters; K = {self.samples}",
            f"a forward and a backward pass: {times}",
            f"memory: {sizes}",
            f"largest difference from a plain run: {self.error:.1e}",
        ]
        rows = [
            (p.name, "x".join(map(str, p.shape)), p.dtype, "" if p.maskable else "not maskable", ", ".join(p.tied))
            for p in self.parameters
        ]
        modules = [(m.name or "(the model)", m.type, m.how, m.detail) for m in self.submodules]
        parameters = _table(("parameter", "shape", "dtype", "", "tied with"), rows)
        return "\n".join([*head, "", *parameters, "", *_table(("submodule", "type", "runs by", ""), modules)])


def inspect(model: nn.Module, *args: Any, samples: int = 4, executor: str = "auto", **kwargs: Any) -> Report:
    """Return what of `model` can be masked and how it will run under K parameter sets; the model is not changed.

    Args:
        model: any module.
        args, kwargs: one plain example, as for `model(*args, **kwargs)`, without K.
        samples: K.
        executor: as for `modhook.stack`.

    Raises:
        StackError: the model cannot be run exactly; the message says why and what to do.
    """
    stacked = stack(model, (args, kwargs), samples, executor)
    choice = stacked.choice
    example = flatten((args, kwargs))
    arguments = example.with_tensors(
        [
            leaf.tensor if leaf.shared else leaf.tensor.detach().expand(samples, *leaf.tensor.shape)
            for leaf in example.leaves
        ]
    )
    names = [name for name, parameter in model.named_parameters() if parameter.is_floating_point()]
    sets = canary.perturbed(model, names, samples)
    job = Job(model, _forward, sets, arguments, samples, choice.written, choice.islands)

    def measure() -> tuple[dict[str, float], dict[str, int], dict[str, set[str]], dict[str, set[str]]]:
        routes: dict[str, Callable[[], Any]] = {"unmasked": _plain(model, example)}
        if choice.route != "loop":
            routes[choice.route] = lambda: run_vmap(_fresh(job))
        routes["loop"] = lambda: run_loop(_fresh(job))
        with _listening(model) as (ruled, slow):
            saved = {name: _saved(routes[name], model) for name in ("unmasked", choice.route)}
        times = {name: min(_timed(route) for _ in range(_REPEATS)) for name, route in routes.items()}
        weights = sum(s.numel() * s.element_size() for s in sets.values())
        sizes = {"parameters": weights, "saved": saved[choice.route], "unmasked": saved["unmasked"]}
        return times, sizes, ruled, slow

    times, sizes, ruled, slow = canary.quietly(model, measure)
    submodules = tuple(_submodules(model, choice, ruled, slow))
    parameters = tuple(_parameters(model))
    return Report(samples, choice.route, choice.reason, choice.error, parameters, submodules, times, sizes)


def _forward(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return net(*args, **kwargs)


def _plain(model: nn.Module, example: Tree) -> Callable[[], Any]:
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    args, kwargs = example.rebuild([leaf.tensor.detach() for leaf in example.leaves])
    return lambda: twin(*args, **kwargs)


def _fresh(job: Job) -> Job:
    return attrs.evolve(job, parameters={n: p.detach().requires_grad_() for n, p in job.parameters.items()})


def _timed(route: Callable[[], Any]) -> float:
    """Return the milliseconds of one forward and backward pass."""
    start = time.perf_counter()
    with torch.enable_grad():
        _backward(route())
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def _saved(route: Callable[[], Any], model: nn.Module) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, each storage once, the model's own aside."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _backward(route())
    return sum(storages.values())


def _backward(outputs: Any) -> None:
    tensors = [leaf.tensor for leaf in flatten(outputs).leaves]
    differentiable = [t.abs().sum() if t.is_complex() else t.sum() for t in tensors if t.requires_grad]
    if differentiable:
        torch.stack([t.double() for t in differentiable]).sum().backward()  # type: ignore[no-untyped-call]


@contextmanager
def _listening(model: nn.Module) -> Iterator[tuple[dict[str, set[str]], dict[str, set[str]]]]:
    """Collect, by submodule, the operations that run by a rule and those that vmap takes sample by sample."""
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    ruled: dict[str, set[str]] = {}
    slow: dict[str, set[str]] = {}

    def running() -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                return names[id(owner)]
            frame = frame.f_back
        return ""

    def warned(message: Warning | str, *_: Any, **__: Any) -> None:
        if found := re.search(r"batching rule for (\S+?)\.? ", str(message)):
            slow.setdefault(running(), set()).add(found.group(1))

    token = listener.set(lambda operation: ruled.setdefault(running(), set()).add(operation))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = warned
            yield ruled, slow
    finally:
        listener.reset(token)


def _parameters(model: nn.Module) -> Iterator[ParameterReport]:
    names = parameter_names(model)
    for name, p in model.named_parameters():
        others = tuple(other for other, first in names.items() if first == name and other != name)
        dtype = str(p.dtype).removeprefix("torch.")
        yield ParameterReport(name, tuple(p.shape), p.numel(), dtype, p.requires_grad, p.is_floating_point(), others)


def _submodules(
    model: nn.Module, choice: Choice, ruled: dict[str, set[str]], slow: dict[str, set[str]]
) -> Iterator[SubmoduleReport]:
    for name, module in model.named_modules():
        how, detail = "vmap", ""
        island = next((i for i in choice.islands if name == i or name.startswith(f"{i}.")), None)
        if choice.route == "loop":
            how, detail = "loop", choice.reason if not name else ""
        elif island is not None:
            how, detail = "island", choice.island_reasons[island] if name == island else f"inside {island}"
        elif name in slow:
            how, detail = "slow", ", ".join(sorted(slow[name]))
        elif name in ruled:
            how, detail = "rule", ", ".join(sorted(ruled[name]))
        yield SubmoduleReport(name, type(module).__name__, how, detail)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
