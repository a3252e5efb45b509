"""`stack` and `prepare`: a module, or a loss around it, that runs under K parameter sets at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from modhook.errors import StackError, UserError, near_miss
from modhook.network.guard import Guard, lent
from modhook.network.remade import Recipes
from modhook.network.threads import using
from modhook.stacked.blame import blamed, from_their_code, users_own
from modhook.stacked.canary import described
from modhook.stacked.checks import first_names, leading_sizes, refuse, stacked_parameters
from modhook.stacked.layers import settle_layers
from modhook.stacked.routes import Function, Job, forward, own_tensors, run_loop, run_vmap
from modhook.stacked.rules import Disagreement
from modhook.stacked.settle import Choice, settle
from modhook.stacked.trees import Tree, flatten
from modhook.stacked.watch import Watch, Written
from modhook.values.arguments import checked, instance, shown
from modhook.values.bounds import Count

EXECUTORS = ("auto", "fastest", "vmap", "loop")


class Stacked:
    """Runs a function of a model under K parameter sets; made by `stack` or `prepare`.

    Attributes:
        route: how the latest kind of call runs: "vmap", "islands" (vmap, some submodules looped) or "loop"; "unsettled"
            before the first call without an example.
        reason: why, one sentence.
        guard: the values of the model, while they stay the same from call to call.
        layers: whether parameters are given as recipes, made layer by layer; then samples run one after another.
    """

    def __init__(
        self,
        model: nn.Module,
        function: Function,
        names: tuple[str, ...],
        samples: int,
        executor: str,
        guard: Guard | None = None,
        layers: bool = False,
    ) -> None:
        self.layers = layers
        self.model = model
        self.samples = samples
        self.executor = executor
        self._function = function
        self._names = names
        self._choices: dict[Any, Choice] = {}
        self._known: dict[str, Choice] = {}
        self._latest = Choice("unsettled", "nothing was run yet")
        self.guard = guard

    def __call__(self, params: Mapping[str, Tensor | Recipes], *args: Any, **kwargs: Any) -> Any:
        """Run all samples.

        Args:
            params: {parameter name: (K, *its shape)}, all or some of the parameters; K may differ from `samples`.
                The other parameters are the model's own, and get no gradient.
            args, kwargs: every tensor in them, however nested, has a leading K unless wrapped in `modhook.shared`.

        Returns:
            What the function returns, every tensor with a leading K; what is no tensor is returned once.

        Raises:
            StackError: an unknown parameter, or a wrong shape or leading size.
        """
        with using(self.model):
            return self._run(params, args, kwargs)

    def _run(self, params: Mapping[str, Tensor | Recipes], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values, samples = stacked_parameters(self.model, params)
        arguments = flatten((args, kwargs))
        if samples is None:
            samples = next((leaf.tensor.shape[0] for leaf in arguments.leaves if not leaf.shared), self.samples)
        leading_sizes(arguments.leaves, samples)
        key = self._key(values, arguments)
        choice = self._choices.get(key)
        if choice is None and self._known:
            choice = self._known.get(repr(key))
        if choice is None:
            choice = self._choices[key] = self._settle(tuple(values), arguments, samples)
        with self._guarded(values) as guard:
            while True:
                self._latest = choice
                watch = Watch({n: v for n, v in values.items() if isinstance(v, Tensor)}, guard.memory, choice.written)
                outputs = self._routed(key, choice, values, arguments, samples, watch)
                late = self._late(choice, guard, watch)
                if not late:
                    return outputs
                # What it writes on these inputs was not known: once more, on copies.
                known = self._choices.get(key, choice)
                choice = self._choices[key] = attrs.evolve(known, written=choice.written | late)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Calls within it that are only looked at change neither the routes of other calls nor what is reported of them."""
        choices, latest = dict(self._choices), self._latest
        try:
            yield
        finally:
            self._choices, self._latest = {**self._choices, **choices}, latest

    @contextmanager
    def _guarded(self, values: Mapping[str, Tensor | Recipes]) -> Iterator[Guard]:
        """Yield the values of the model's own tensors, which are put back after an error."""
        guard = self.guard or Guard(self.model, values)
        guard.begin()
        try:
            yield guard
        except BaseException:
            guard.put_back()
            raise

    def _late(self, choice: Choice, guard: Guard, watch: Watch) -> frozenset[str]:
        """Return what a call wrote, or was about to write, that was not known; what it wrote is put back."""
        wrote = guard.written() | guard.differing(watch.touched)
        if lost := sorted((wrote - guard.recoverable) | watch.passed()):
            raise StackError(
                f"the model wrote into {lost[0]!r} in a way that cannot be undone, such as through a closure or compiled code: "
                "its values have changed, so load them again, and let the model write into tensors of its own"
            )
        if wrote:
            guard.put_back()
        return frozenset(wrote | watch.found) - choice.written

    def _routed(
        self, key: Any, choice: Choice, values: Mapping[str, Tensor | Recipes], arguments: Tree, samples: int, watch: Watch
    ) -> Any:
        """Run one call by its route; None where `watch` stopped it."""
        own = own_tensors(self.model, choice.written, values)
        islands, wide, written = choice.islands, choice.wide, choice.written
        job = Job(self.model, self._function, values, arguments, samples, written, own, islands, wide, watch=watch)
        # In a loop the watch costs some per cent of a small step; there the guard and torch itself find what is written.
        job = attrs.evolve(job, watching=self.guard is None or choice.sparse)
        failed: Exception | None = None
        try:
            if choice.route != "loop":
                try:
                    return run_vmap(job)
                except Exception as error:
                    failed = error
                # Outside the handler, so that the user sees the loop's error, if any, without a vmap traceback.
                self._latest = attrs.evolve(
                    choice, route="loop", reason=f"vmap cannot run this call ({described(failed)})"
                )
            try:
                outputs = run_loop(job)
            except RuntimeError as error:
                if job.watching or "inplace" not in str(error).replace("-", ""):
                    raise
                outputs = run_loop(attrs.evolve(job, watching=True))
        except Written:
            outputs = None
        if failed is None:
            return outputs
        if users_own(failed) and _passes(job):  # a second time: what they raised once was not about vmap
            self._latest = choice
            failed.add_note(blamed(self.model, failed, "while running all mask samples at once"))
            raise from_their_code(failed)
        if not isinstance(failed, Disagreement):  # samples that only took different branches may run stacked again
            self._choices[key] = self._latest
        if outputs is not None and self.executor == "vmap":
            raise StackError(f'executor="vmap" cannot run this call: {described(failed)}. Use executor="auto"')
        return outputs

    @property
    def route(self) -> str:
        """The route of the latest kind of call."""
        return self._latest.route

    @property
    def reason(self) -> str:
        """Why this route."""
        return self._latest.reason

    @property
    def choice(self) -> Choice:
        """The route of the latest kind of call, with everything known about it."""
        return self._latest

    def report(self) -> dict[str, Any]:
        """Return route, reason, executor, samples, islands with reasons, what the model writes, and the canary's error."""
        return {
            "route": self.route,
            "reason": self.reason,
            "executor": self.executor,
            "samples": self.samples,
            "islands": dict(self._latest.island_reasons),
            "written": sorted(self._latest.written),
            "error": self._latest.error,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the routes that were settled, by kind of call."""
        known = {**self._known, **{repr(key): choice for key, choice in self._choices.items()}}
        return {
            "known": {key: _saved(choice) for key, choice in known.items()},
            "latest": _saved(self._latest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the routes of `state_dict()`'s result; these kinds of calls are not settled again."""
        self._known = {key: _choice(saved) for key, saved in state["known"].items()}
        self._latest = _choice(state["latest"])

    def _key(self, values: Mapping[str, Tensor | Recipes], arguments: Tree) -> Any:
        """Return what a canary is valid for: parameters, input structure, dtype, device, mode; not sizes."""
        kinds = tuple((name, value.dtype, value.device) for name, value in values.items())
        return kinds, arguments.kind(), tuple(module.training for module in self.model.modules())

    def settle_on(self, params: Mapping[str, Tensor], arguments: Tree) -> Choice:
        """Settle, and return, the route of calls of this kind: {first name: (K, *shape)}, and arguments (K, ...) or shared."""
        choice = self._settle(tuple(params), arguments, self.samples)
        self._latest = self._choices[self._key(params, arguments)] = choice
        return choice

    def _settle(self, names: tuple[str, ...], arguments: Tree, samples: int) -> Choice:
        """Return the route for these arguments, (K, ...) or shared, checked now."""
        # In a fit the weights that others replace are not copied, as in every step.
        with using(self.model), lent(self.model, () if self.guard is None else names):
            if self.layers:
                return settle_layers(self.model, self._function, names, arguments)
            return settle(self.model, self._function, names, arguments, samples, self.executor)


def _passes(job: Job) -> bool:
    """Return whether vmap can run this call."""
    try:
        run_vmap(job)
    except (Exception, Written):
        return False
    return True


def _saved(choice: Choice) -> dict[str, Any]:
    return attrs.asdict(choice, recurse=False) | {"written": sorted(choice.written)}


def _choice(saved: Mapping[str, Any]) -> Choice:
    return Choice(**{**saved, "written": frozenset(saved["written"])})


def prepare(
    model: nn.Module,
    function: Function,
    example_trees: tuple[Any, ...] | None,
    names: Iterable[str],
    samples: int,
    executor: str = "auto",
    guard: Guard | None = None,
    layers: bool = False,
) -> Stacked:
    """Return `function` under K parameter sets: `stacked(params, *trees)` calls `function(net, *trees)` once per sample.

    Args:
        model: any module; it is never changed.
        function: called with the network and one sample's trees; returns any tree of tensors, such as a loss.
        example_trees: trees as they will be given to the result, tensors with a leading K (or wrapped in `shared`);
            the route is settled on them now. None: at the first call.
        names: the parameters that will be stacked.
        samples: K.
        executor: "auto", "fastest", "vmap" or "loop".
        guard: the values of the model, where they stay the same from call to call; None: looked at anew by every call.
        layers: parameters will be given as recipes (`modhook.network.remade`); samples run one after another.

    Raises:
        StackError: an unknown executor or parameter, or a model that cannot be run exactly.
    """
    if not isinstance(executor, str) or executor not in EXECUTORS:
        valid = ", ".join(EXECUTORS)
        raise StackError(f"unknown executor {executor!r}{near_miss(str(executor), EXECUTORS)}; valid are {valid}")
    samples = checked("samples", samples, Count)
    instance("model", model, nn.Module, "an nn.Module")
    refuse(model)
    with using(model):  # another thread may run it under its own parameters
        first = tuple(dict.fromkeys(first_names(model, names).values()))
        stacked = Stacked(model, function, first, samples, executor, guard, layers)
        if example_trees is not None:
            own = dict(model.named_parameters())
            params = {name: own[name].detach().expand(samples, *own[name].shape) for name in first}
            arguments = flatten((tuple(example_trees), {}))
            leading_sizes(arguments.leaves, samples, "the samples")
            stacked.settle_on(params, arguments)
    return stacked


def _example(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of one plain call. Raises `UserError` for what is no pair of them."""
    pair = isinstance(example, tuple | list) and len(example) == 2
    if not pair or not isinstance(example[0], tuple | list) or not isinstance(example[1], Mapping):
        raise UserError(
            "example must be the arguments of one call, a pair (args, kwargs): ((x,), {}) for model(x); it is "
            f"{shown(example)}."
        )
    return tuple(example[0]), dict(example[1])


def stack(
    model: nn.Module,
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    samples: int = 4,
    executor: str = "auto",
) -> Stacked:
    """Return the model under K parameter sets: `stacked(params, *args, **kwargs)`.

    Args:
        model: any module; it is never changed.
        example: (args, kwargs) as for one plain call `model(*args, **kwargs)`, without K. The route is settled on it
            now; without an example, at the first call.
        samples: K, used where a call gives no parameters.
        executor: "auto", "fastest", "vmap" or "loop".

    Raises:
        StackError: an unknown executor, or a model that cannot be run exactly.
    """
    instance("model", model, nn.Module, "an nn.Module")
    refuse(model)
    names = [name for name, parameter in model.named_parameters() if parameter.is_floating_point()]
    stacked = prepare(model, forward, None, names, samples, executor)
    samples = stacked.samples
    if example is not None:
        args, kwargs = _example(example)
        plain = flatten((tuple(args), dict(kwargs)))
        tensors = [t.tensor if t.shared else t.tensor.detach().expand(samples, *t.tensor.shape) for t in plain.leaves]
        arguments = plain.with_tensors(tensors)
        own = dict(model.named_parameters())
        params = {name: own[name].detach().expand(samples, *own[name].shape) for name in names}
        stacked.settle_on(params, arguments)
    return stacked
