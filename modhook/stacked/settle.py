"""Chooses the route of one kind of call among those that the canary admits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.network.twin import twin
from modhook.stacked import canary
from modhook.stacked.blame import blamed, from_their_code, innermost, users_own
from modhook.stacked.choose import choose
from modhook.stacked.outside import elsewhere, refuse_reach
from modhook.stacked.routes import Function, Job, own_tensors, run_loop, run_vmap
from modhook.stacked.rules import Memory
from modhook.stacked.rules.fresh import REFUSED
from modhook.stacked.trees import Tree, flatten

CANARY_SAMPLES = 2
# A difference below this share can be float32's rounding, and is looked at again in float64.
ROUNDING = 0.2
_ATTEMPTS = 48


@attrs.frozen
class Choice:
    """The route for one kind of call, why, the submodules that loop within it, and what the model writes in it.

    `error` is the canary's: the largest difference of an output or gradient, relative to its largest number. `wide` says
    that every sample gets its own copy of tensors that the model makes. `vectorised` is "vmap" or "islands" where that
    route is admitted too and the loop was preferred. `sparse`: the model asks for sparse gradients.
    """

    route: str
    reason: str
    written: frozenset[str] = frozenset()
    islands: tuple[str, ...] = ()
    island_reasons: dict[str, str] = attrs.field(factory=dict)
    error: float = 0.0
    wide: bool = False
    vectorised: str = ""
    sparse: bool = False


def settle(
    model: nn.Module, function: Function, names: tuple[str, ...], arguments: Tree, samples: int, executor: str
) -> Choice:
    """Run the canary on two samples of these arguments, (K, ...) or shared, and choose.

    Raises:
        StackError: no route reproduces a plain run, or not the one that `executor` asks for.
        Exception: whatever the user's own code raises in a plain run.
    """
    return Canary.of(model, function, names, arguments, samples).choose(executor)


@attrs.frozen
class Canary:
    """The comparison of routes with what plain copies computed: the copies run once, however many routes are asked for.

    `arguments` are those of all K `samples`; the job has two of them.
    """

    job: Job
    expected: canary.Reference
    arguments: Tree
    samples: int
    _known: dict[Any, canary.Finding] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, model: nn.Module, function: Function, names: tuple[str, ...], arguments: Tree, samples: int) -> Canary:
        """Run the plain copies. Raises whatever the user's own code raises, and `StackError`."""
        arguments = arguments.with_tensors([leaf.tensor.detach() for leaf in arguments.leaves])
        two = arguments.with_tensors([leaf.tensor if leaf.shared else few(leaf.tensor) for leaf in arguments.leaves])
        sets = canary.perturbed(model, names, CANARY_SAMPLES)
        expected = canary.quietly(model, lambda: canary.reference(model, function, two, sets, CANARY_SAMPLES))
        own = own_tensors(model, expected.written, sets)
        job = Job(model, function, sets, two, CANARY_SAMPLES, expected.written, own)
        return cls(job, expected, arguments, samples)

    def choose(self, executor: str) -> Choice:
        """Return the route that `executor` asks for; "vectorised" is for reports: vmap, with islands if need be, never the loop.

        Raises `StackError`, or the user's own error, as `settle`.
        """
        model, names, expected = self.job.model, tuple(self.job.parameters), self.expected
        looping, row = choose(model, self.samples) if names else (False, "no weight is another one under each sample")
        choice, reason = None, "the loop was asked for"
        if executor == "auto" and looping:  # another route would not be taken, whatever it does
            reason = row
        elif executor != "loop":
            choice, reason = _vectorised(self, executor)
        if choice is not None:
            if executor == "fastest":
                whole = attrs.evolve(
                    self.job, arguments=self.arguments, samples=self.samples, islands=choice.islands, wide=choice.wide
                )
                loop, reason = _measured(whole, canary.perturbed(model, names, self.samples), choice.route)
            else:
                loop, reason = False, row if executor == "auto" else ""
            if not loop:
                why = f"{choice.reason}; {reason}" if reason else choice.reason
                return attrs.evolve(choice, reason=why, sparse=expected.sparse)
        if executor == "vectorised" and choice is None:
            raise StackError(reason)
        looped = self.check(run_loop)
        if looped.error and users_own(looped.error):
            raise from_their_code(looped.error)  # with a note of the sample
        if looped.text:
            raise StackError(refusal(model, looped.text))
        if choice is None:
            return Choice("loop", reason, expected.written, error=looped.worst, sparse=expected.sparse)
        route = choice.route
        return attrs.evolve(
            choice, route="loop", reason=reason, error=looped.worst, vectorised=route, sparse=expected.sparse
        )

    def check(
        self, route: Callable[..., Any], islands: tuple[str, ...] = (), wide: bool = False, *, again: bool = False
    ) -> canary.Finding:
        """Compare one route; once, unless it is to be done again."""
        known = (route, islands, wide)
        if again or known not in self._known:
            self._known[known] = self._checked(*known)
        return self._known[known]

    def _checked(self, route: Callable[..., Any], islands: tuple[str, ...], wide: bool) -> canary.Finding:
        memory = Memory(wide=wide)
        job = attrs.evolve(self.job, islands=islands, wide=wide, memory=memory)
        found: canary.Finding = canary.quietly(job.model, lambda: canary.compare(route, job, self.expected))
        if 0 < found.worst < ROUNDING and found.text and self._agrees_in_double(route, job):
            found = canary.Finding(worst=found.worst)
        if found.text or not memory.reads:
            return found
        return self._reads(job) or found

    def _agrees_in_double(self, route: Callable[..., Any], job: Job) -> bool:
        """Return whether the route is exact in float64, so that what was found is float32's rounding.

        Rounding alone can turn a ReLU or a max pooling that stands at its edge, and with it a whole gradient.
        """

        def compare() -> canary.Finding:
            model = twin(job.model).double()
            arguments = job.arguments.with_tensors([in_double(leaf.tensor) for leaf in job.arguments.leaves])
            sets = {name: in_double(value) for name, value in job.parameters.items()}
            expected = canary.reference(model, job.function, arguments, sets, job.samples)
            own = own_tensors(model, expected.written, sets)
            memory = Memory(wide=job.wide)
            wide = attrs.evolve(job, model=model, arguments=arguments, parameters=sets, own=own, memory=memory)
            return canary.compare(route, wide, expected)

        try:
            found: canary.Finding = canary.quietly(job.model, compare)
        except Exception:  # a model or loss that insists on float32 gets no second look
            return False
        return not found.text

    def _reads(self, job: Job) -> canary.Finding | None:
        """Refuse a model that reads values which depend on its weights: they agree by chance here, and hardly ever later.

        Arguments are given whole, so that only what depends on weights is stacked.
        """
        leaves = [
            attrs.evolve(leaf, shared=True, tensor=leaf.tensor if leaf.shared else leaf.tensor[0])
            for leaf in job.arguments.leaves
        ]
        arguments = attrs.evolve(job.arguments, leaves=tuple(leaves))
        # With copies for every sample, new tensors would look as if they depended on weights: only if it must be.
        for wide in (False, True) if job.wide else (False,):
            asked = attrs.evolve(
                job,
                arguments=arguments,
                written=self.expected.written,
                wide=wide,
                memory=Memory(strict=True, wide=wide),
            )
            try:
                canary.quietly(job.model, partial(run_vmap, asked, canary.NoDropout))
            except Exception as error:
                if wide or not job.wide or REFUSED not in str(error):
                    return canary.Finding(canary.described(error), error)
            else:
                return None
        return None


def _vectorised(canary_: Canary, executor: str) -> tuple[Choice | None, str]:
    """Return the vmap route, if need be with islands, or None and why not."""
    model, written = canary_.job.model, canary_.expected.written
    reasons: dict[str, str] = {}
    wide, text = False, ""
    for _ in range(_ATTEMPTS):
        found = canary_.check(run_vmap, tuple(reasons), wide)
        if not found.text and not reasons:
            reason = "vmap agrees with a plain run of the model"
            return Choice("vmap", reason, written, error=found.worst, wide=wide), ""
        if not found.text:
            reason = "vmap agrees with a plain run of the model, with these submodules looped: " + ", ".join(reasons)
            return Choice("islands", reason, written, tuple(reasons), reasons, found.worst, wide), ""
        if found.error and not wide and REFUSED in str(found.error):
            wide = True
            continue
        if found.error and users_own(found.error) and not canary_.check(run_vmap, tuple(reasons), wide, again=True).error:
            # A second time it was not raised, so that it was not about vmap.
            found.error.add_note(blamed(model, found.error, "while running all mask samples at once"))
            raise from_their_code(found.error)
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


def _measured(job: Job, sets: Mapping[str, Tensor], vectorised: str) -> tuple[bool, str]:
    """Time a forward and a backward pass of the vectorised route and of the loop; return whether to loop, and the times."""

    def once(route: Callable[..., Any]) -> float:
        leaves = {name: value.clone().requires_grad_() for name, value in sets.items()}
        start = time.perf_counter()
        with torch.enable_grad():
            outputs = [leaf.tensor for leaf in flatten(route(attrs.evolve(job, parameters=leaves))).leaves]
            parts = [o.abs().sum() for o in outputs if o.requires_grad]
            if parts:  # none without parameters
                sum(parts).backward()  # type: ignore[union-attr]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def times() -> tuple[float, float]:
        pairs = [(once(run_vmap), once(run_loop)) for _ in range(6)][1:]
        return min(v for v, _ in pairs), min(s for _, s in pairs)

    stacked, looped = canary.quietly(job.model, times)
    measured = f"{vectorised} took {1e3 * stacked:.1f} ms and the loop {1e3 * looped:.1f} ms"
    return looped < stacked, f"the loop was measured to be faster: {measured}" if looped < stacked else measured


def refusal(model: nn.Module, wrong: str) -> str:
    """Say why no route is exact, naming a parameter that is kept where it cannot be replaced."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for where, tensor in elsewhere(model):
        if id(tensor) in names:
            return (
                f"{where.owner} reads parameter {names[id(tensor)]!r} from its attribute {where.attribute!r}, where it "
                f"cannot be replaced: read it from where it is registered, or keep it in an nn.ParameterList ({wrong})"
            )
    refuse_reach(model)
    return (
        f"the model cannot be run exactly under other weights: {wrong}. It may read a weight from somewhere else than "
        "the module that registers it"
    )


def in_double(tensor: Tensor) -> Tensor:
    """Return real numbers in float64, others as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def few(tensor: Tensor) -> Tensor:
    """Return the first samples of a stacked tensor, as many as the canary runs: (2, ...)."""
    return tensor[:CANARY_SAMPLES] if tensor.shape[0] >= CANARY_SAMPLES else tensor[[0] * CANARY_SAMPLES]
