"""`inspect`: what of a model can be masked, and how each part of it will run under stacked parameters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import ModhookError, StackError, UserError, listing
from modhook.network.guard import lent, memory_of
from modhook.network.owned import owned
from modhook.network.recurrent import with_gradients
from modhook.network.scope import parameter_names
from modhook.network.threads import using
from modhook.network.twin import twin as copied
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Tracker
from modhook.plugin.trackers import tracker_of
from modhook.stacked import canary
from modhook.stacked.blame import users_own
from modhook.stacked.heard import Heard, listening
from modhook.stacked.routes import Job, forward, own_tensors, run_loop, run_vmap
from modhook.stacked.settle import Canary, Choice
from modhook.stacked.show import headline, page, text
from modhook.stacked.stacked import stack
from modhook.stacked.trees import Tree, flatten
from modhook.values.arguments import instance

_REPEATS = 3
_ENOUGH = 1000.0
"""Milliseconds of measuring after which no pass is repeated."""
_STEPS = 4 + _REPEATS
"""What a bar counts: the plain copies, the routes, what they keep for the backward pass, and the measured passes."""
_ROWS = 40
"""Parameters, and submodules, that `print` and a notebook show; `text()` and `to_dict()` have all."""


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


@attrs.frozen(repr=False)
class Report:
    """What `inspect` found.

    Attributes:
        route, reason: how the whole model runs and why.
        error: the canary's largest relative difference from a plain run, over outputs and gradients.
        errors: the same for every route that the canary admits.
        milliseconds: one forward and backward pass, the best of several where they take less than a second: `unmasked` is the plain
            model on the example, the others (every admitted route) run K samples of that size each.
        bytes: `parameters` is what one set of K weights takes; `saved` is what the chosen route keeps for its backward
            pass, beside the weights; `unmasked` is what the plain model keeps.
    """

    samples: int
    route: str
    reason: str
    error: float
    errors: dict[str, float]
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

    def text(self, rows: int | None = None) -> str:
        """Return the report for people, every parameter and submodule on a line of its own; of each at most `rows`."""
        return text(self, rows)

    def __str__(self) -> str:
        return self.text(_ROWS)

    def __repr__(self) -> str:
        return f"Report({headline(self)})"

    def _repr_html_(self) -> str:
        return page(self, _ROWS)



def inspect(
    model: nn.Module, *args: Any, samples: int = 4, executor: str = "auto", progress: bool | Tracker = True, **kwargs: Any
) -> Report:
    """Return what of `model` can be masked and how it will run under K parameter sets; the model is not changed.

    `fit_masks` with this K takes the same route, by the same table, unless its loss does what the network alone does not (a call of
    `.item()`, say): the loss is part of what it checks. `fit.route` says which route it was, and why.

    Args:
        model: any module.
        args, kwargs: one plain example, as for `model(*args, **kwargs)`, without K.
        samples: K.
        executor: as for `modhook.stack`.
        progress: True for a progress bar (on a terminal; nothing elsewhere), False for silence, or a `Tracker`.

    Raises:
        StackError: the model cannot be run exactly; the message says why and what to do.
        UserError: it does not take this example; the message says where. What the model's own code raises is raised as it is.
    """
    instance("model", model, nn.Module, "an nn.Module")
    tracker = tracker_of(progress)
    try:
        with using(model), lent(model):
            return _inspected(model, args, kwargs, samples, executor, tracker)
    except ModhookError:
        raise
    except Exception as error:
        failed = error
    finally:
        if not isinstance(progress, Tracker):
            tracker.close()
    if users_own(failed):  # asked outside the handler, which is a context of its own
        raise failed
    raise UserError(_not_taken(model, (args, kwargs), failed)) from failed


def _not_taken(model: nn.Module, example: Any, error: Exception) -> str:
    """Return in one sentence what the model was given, in which submodule that fails, and what torch says."""
    place = re.search(r"in submodule '([^']+)'", " ".join(getattr(error, "__notes__", ())))
    inside = f" in its submodule {place[1]!r} ({type(model.get_submodule(place[1])).__name__})" if place else ""
    (args, kwargs), found = example, [(f"argument {leaf.path}: ", leaf.tensor) for leaf in flatten(example[0]).leaves]
    found += [(f"{leaf.path}: ", leaf.tensor) for leaf in flatten(kwargs).leaves]
    alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
    given = [f"{'' if alone else at}{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for at, x in found]
    return (
        f"the network, a {type(model).__name__}, fails{inside} on this example ({listing(given, 8) if given else 'no tensor'}): "
        f"{told(error)}; give one that model(*args, **kwargs) takes."
    )


def _inspected(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], samples: int, executor: str, tracker: Tracker
) -> Report:
    steps = iter(range(1, _STEPS + 1))
    tracker.stage_started("inspect", _STEPS)
    samples = stack(model, None, samples, executor).samples  # refuses what cannot be run at all
    example = flatten((args, kwargs))
    arguments = example.with_tensors(
        [
            leaf.tensor if leaf.shared else leaf.tensor.detach().expand(samples, *leaf.tensor.shape)
            for leaf in example.leaves
        ]
    )
    names = tuple(name for name, parameter in model.named_parameters() if parameter.is_floating_point())
    canary_ = Canary.of(model, forward, names, arguments, samples)
    tracker.step(next(steps), {})
    choice = canary_.choose(executor)
    errors = {choice.route: choice.error}
    for other in ("vectorised", "loop") if executor != "loop" else ():
        tracker.step(next(steps), {})
        try:
            found = canary_.choose(other)
            errors.setdefault(found.route, found.error)
        except StackError:  # not exact by this route, or not at all
            continue
    del canary_  # the weights and gradients of two samples
    sets = canary.perturbed(model, names, samples)
    own = own_tensors(model, choice.written, sets)
    job = Job(model, forward, sets, arguments, samples, choice.written, own, choice.islands, choice.wide)

    def measure() -> tuple[dict[str, float], dict[str, int], Heard]:
        routes: dict[str, Callable[[], Any]] = {"unmasked": _plain(model, example)}
        for name in errors:
            routes[name] = (lambda: run_loop(_fresh(job))) if name == "loop" else (lambda: run_vmap(_fresh(job)))
        with listening(model) as heard:
            saved = {name: _saved(routes[name], model) for name in ("unmasked", choice.route)}
        tracker.step(next(steps), {})
        # Every route has run before, in the canary, so that nothing is compiled here.
        rounds = [{n: saved[n][1] if n in saved else _timed(route) for n, route in routes.items()}]
        while len(rounds) <= _REPEATS and sum(sum(each.values()) for each in rounds) < _ENOUGH:
            rounds.append({name: _timed(route) for name, route in routes.items()})
            tracker.step(next(steps), {})
        times = {name: min(each[name] for each in rounds) for name in routes}
        weights = sum(s.numel() * s.element_size() for s in sets.values())
        sizes = {"parameters": weights, "saved": saved[choice.route][0], "unmasked": saved["unmasked"][0]}
        return times, sizes, heard

    times, sizes, heard = canary.quietly(model, measure)
    submodules = tuple(_submodules(model, choice, heard))
    parameters = tuple(_parameters(model))
    return Report(samples, choice.route, choice.reason, choice.error, errors, parameters, submodules, times, sizes)


def _plain(model: nn.Module, example: Tree) -> Callable[[], Any]:
    twin = copied(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    args, kwargs = example.rebuild([leaf.tensor.detach() for leaf in example.leaves])

    def run() -> Any:
        with with_gradients(twin):
            return twin(*owned(args), **owned(kwargs))

    return run


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


def _saved(route: Callable[[], Any], model: nn.Module) -> tuple[int, float]:
    """Return the bytes that a forward pass keeps for the backward pass, each storage once, the model's own aside, and `_timed`."""
    own = {-1, *(memory_of(t) for t in (*model.parameters(), *model.buffers()))}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (place := memory_of(tensor)) not in own:
            storages[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        milliseconds = _timed(route)
    return sum(storages.values()), milliseconds


def _backward(outputs: Any) -> None:
    tensors = [leaf.tensor for leaf in flatten(outputs).leaves]
    differentiable = [t.abs().sum() if t.is_complex() else t.sum() for t in tensors if t.requires_grad]
    if differentiable:
        torch.stack([t.double() for t in differentiable]).sum().backward()


def _parameters(model: nn.Module) -> Iterator[ParameterReport]:
    names = parameter_names(model)
    for name, p in model.named_parameters():
        others = tuple(other for other, first in names.items() if first == name and other != name)
        dtype = str(p.dtype).removeprefix("torch.")
        yield ParameterReport(name, tuple(p.shape), p.numel(), dtype, p.requires_grad, p.is_floating_point(), others)


def _submodules(model: nn.Module, choice: Choice, heard: Heard) -> Iterator[SubmoduleReport]:
    for name, module in model.named_modules():
        how, detail = "vmap", ""
        island = next((i for i in choice.islands if name == i or name.startswith(f"{i}.")), None)
        if choice.route == "loop":
            how, detail = "loop", choice.reason if not name else ""
        elif island is not None:
            how, detail = "island", choice.island_reasons[island] if name == island else f"inside {island}"
        elif name in heard.slow:
            how, detail = "slow", ", ".join(sorted(heard.slow[name]))
        elif name in heard.ruled:
            how, detail = "rule", ", ".join(sorted(heard.ruled[name]))
        yield SubmoduleReport(name, type(module).__name__, how, detail)
