"""Backward passes of several fits at once: the parameter sets of R fits with K samples each are one stack of R K.

Each fit draws its masks from its own generators, over its own weights, on its own batch, and gets its own gradients: what it does
with them (pull, clipping, optimiser) is its own affair. The first step that fits could do at once they do one by one as well, and only
where losses and gradients agree to the last bit are later ones done at once. So the numbers are those of one by one, always.
"""

from __future__ import annotations

import functools
import itertools
import math
import types
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from modhook.network.alike import alike, unlike
from modhook.network.guard import Guard, same_bits
from modhook.network.kinds import ATOMS, same_state
from modhook.network.scope import Kept, parameter_names
from modhook.network.twin import twin
from modhook.noise.workspace import Workspace
from modhook.stacked.canary import described
from modhook.stacked.routes import Job, run_vmap
from modhook.stacked.trees import Tree, flatten
from modhook.stacked.watch import Watch, Written
from modhook.steps.lockstep import meeting
from modhook.steps.ranks import spread
from modhook.values.randomness import random_state

if TYPE_CHECKING:
    from modhook.fit.engine import MaskTrainer

SHAPES = 8
"""Most shapes of batches that a set of fits tries: where they are others in every step, there is nothing to gain."""
_TRY = object()
_CHANGED = "a network is changed between steps"
_RAISED = "a step that was done at once raised an error"


@attrs.frozen(eq=False)
class Step:
    """A backward pass that is to be done; `tree` has the groups of the batch as the arguments of the loss."""

    trainer: MaskTrainer
    tree: Tree


@attrs.frozen(eq=False)
class Trial(Step):
    """One that was done alone: what it started from, and what came of it."""

    noise: tuple[Tensor, ...]
    before: tuple[Tensor | None, ...]
    loss: float | Tensor
    drew: bool
    """Whether it drew other random numbers than those of the masks."""


def backward(trainer: MaskTrainer, groups: Any) -> float | Tensor:
    """Do `trainer.backward(groups)`, at once with those of other fits where these wait for it."""
    meet = meeting()
    if meet is None or spread():
        return trainer.backward(groups)
    tree = flatten(((groups,), {}))
    answer = meet(Step(trainer, tree))
    if answer is not _TRY:
        return trainer.backward(groups) if answer is None else answer
    (noise,) = _noise([Step(trainer, tree)])
    before = tuple(None if t.grad is None else t.grad.clone() for t in _learned(trainer))
    state = random_state()
    loss = trainer.backward(groups)
    meet(Trial(trainer, tree, noise, before, loss, not same_state(state, random_state())))
    return loss


class Joint:
    """Does the backward passes of fits that wait: `join` of `modhook.steps.lockstep.Lockstep`.

    Args:
        say: told, once, why fits run one by one.

    Attributes:
        done: backward passes that were done at once with others.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.done = 0
        self._say, self._said = say, set[str]()
        self._kinds: list[_Kind] = []
        self._known: weakref.WeakKeyDictionary[MaskTrainer, tuple[int, _Kind | None]] = weakref.WeakKeyDictionary()
        self._kept: weakref.WeakKeyDictionary[MaskTrainer, Kept] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count()

    @torch.inference_mode(False)
    def __call__(self, works: Sequence[Any]) -> list[Any]:
        """Return for each: its loss, None where it is to be done alone, or the error that it ends with."""
        answers: list[Any] = [None] * len(works)
        together: dict[Any, list[int]] = {}
        for i, work in enumerate(works):
            kind = self._kind(work.trainer)
            if kind is not None:
                shapes = tuple((leaf.tensor.shape, leaf.tensor.dtype, leaf.shared) for leaf in work.tree.leaves)
                together.setdefault((id(kind), type(work), work.tree.structure, shapes), []).append(i)
        if any(len(members) == 1 and any(k != key and k[:2] == key[:2] for k in together) for key, members in together.items()):
            self._tell("their batches have different shapes, in some steps at least")
        for key, members in together.items():
            chosen = [works[i] for i in members]
            kind = self._known[chosen[0].trainer][1]
            fits = tuple(self._known[w.trainer][0] for w in chosen)
            if len(chosen) < 2 or kind is None or fits in kind.refused:
                continue
            if not all(_alike(chosen[0].tree, w.tree) for w in chosen):
                self._tell("their batches differ in what is not cut into groups, in some steps at least")
                continue
            admitted, why = kind.admitted.setdefault(fits, set()), ""
            if isinstance(chosen[0], Trial):
                why = self._tried(kind, chosen)
                admitted.add(key[2:])
            elif key[2:] in admitted:
                losses = self._at_once(kind, chosen)
                why = "" if losses else _RAISED
                for i, loss in zip(members, losses, strict=False):
                    answers[i] = loss
            elif len(admitted) < SHAPES:
                for i in members:
                    answers[i] = _TRY
            else:
                why = "their batches have another size in every step"
            if why:
                kind.refused.add(fits)
                self._tell(why)
        return answers

    # -- inside

    def _kind(self, trainer: MaskTrainer) -> _Kind | None:
        """Return the kind of a fit; None where it runs alone, as all do in their first step."""
        if (known := self._known.get(trainer)) is not None:
            if known[1] is not None and self._changed(trainer):
                self._tell(_CHANGED)
                self._known[trainer] = known = known[0], None
            return known[1]
        if trainer.stacked is None:
            return None
        kind = None
        self._kept[trainer] = Kept(trainer.model)
        if why := _alone(trainer) or (_CHANGED if self._changed(trainer) else ""):
            self._tell(why)
        else:
            kind = next((k for k in self._kinds if not k.differs(trainer)), None)
            if kind is None:
                if self._kinds:
                    self._tell(self._kinds[-1].differs(trainer))
                kind = _Kind.of(trainer)
                self._kinds.append(kind)
            kind.take(trainer)
        self._known[trainer] = next(self._numbers), kind
        return kind

    def _changed(self, trainer: MaskTrainer) -> bool:
        """Return whether something was set or written in a fit's network between its steps, by a callback say: alone it counts at once."""
        return trainer.guard is None or bool(trainer.guard.written()) or self._kept[trainer].changed()

    def _tried(self, kind: _Kind, works: Sequence[Trial]) -> str:
        """Compare what fits did alone with what they do at once; return why they may not, or an empty text."""
        if any(work.drew for work in works):
            return "the network or the loss draws random numbers in a step"
        states = _noise(works)
        try:
            _rewind(works, [work.noise for work in works])
            parts, losses = kind.losses(works)
            found = iter(torch.autograd.grad(parts, [t for w in works for t in _learned(w.trainer)], allow_unused=True))
            same = not kind.wrote()
            for work, loss in zip(works, losses, strict=True):
                same &= float(loss) == float(work.loss) or (math.isnan(loss) and math.isnan(work.loss))
                for tensor, before in zip(_learned(work.trainer), work.before, strict=True):
                    same &= _same_sum(before, next(found), tensor.grad)
        except Written:
            return "the network writes into tensors that it holds"
        except Exception as error:
            return f"they cannot run at once ({described(error)})"
        finally:
            _rewind(works, states)
        return "" if same else "at once their losses or gradients are not the same to the last bit"

    def _at_once(self, kind: _Kind, works: Sequence[Step]) -> list[Any]:
        """Add the gradients of all, and return the losses; none, with nothing changed, where one of them raises an error.

        An error of the backward pass is returned instead where gradients that had been there may have been added to.
        """
        states = _noise(works)
        try:
            parts, losses = kind.losses(works)
            if kind.wrote():
                raise Written
        except (Exception, Written):  # each says it as it does alone
            _rewind(works, states)
            return []
        grads = [(t, t.grad, None if t.grad is None else t.grad._version) for w in works for t in _learned(w.trainer)]
        try:
            with kind.workspace.active():
                torch.autograd.backward(parts)
        except Exception as error:
            if any(grad is not None and grad._version != version for _, grad, version in grads):
                return [error] * len(works)
            for tensor, grad, _ in grads:
                tensor.grad = grad
            _rewind(works, states)
            return []
        self.done += len(works)
        return losses

    def _tell(self, why: str) -> None:
        if why and why not in self._said:
            self._said.add(why)
            self._say(f"masks are learned one by one: {why}")


@attrs.define(eq=False)
class _Kind:
    """Fits that can be one stack: the same architecture, samples and loss."""

    first: MaskTrainer
    net: nn.Module
    """A copy of the first network, in which the weights of all stand in turn."""
    guard: Guard
    names: dict[str, str]
    workspace: Workspace = attrs.field(factory=Workspace)
    admitted: dict[tuple[int, ...], set[Any]] = attrs.field(factory=dict)
    """{the fits, by number: shapes of their batches with which they were tried}"""
    refused: set[tuple[int, ...]] = attrs.field(factory=set)
    own: bool = False
    """Whether weights without a mask are each network's own, and not those of the copy."""

    @classmethod
    def of(cls, trainer: MaskTrainer) -> _Kind:
        net = twin(trainer.model).requires_grad_(False)
        names = parameter_names(net)
        return cls(trainer, net, Guard(net, tuple(names)), names)

    def differs(self, trainer: MaskTrainer) -> str:
        """Return why a fit is of another kind; empty where it is of this one."""
        one, other = self.first, trainer
        if one.samples != other.samples:
            return "they draw different numbers of mask samples"
        if not _same_function(one.loss, other.loss):
            return "their losses are different functions"
        if one.model is not other.model and _structure(one.model) != _structure(other.model):
            return "their networks have different structures"
        if one.logits.keys() != other.logits.keys() or one.fixed.keys() != other.fixed.keys():
            return "they learn masks of different parameters"
        if one.trained.keys() != other.trained.keys() or one.unmasked.keys() != other.unmasked.keys():
            return "they learn different weights, or clip over different ones"
        if place := unlike(self.net, other.model):
            return f"their networks hold different values in {place!r}"
        return ""

    def take(self, trainer: MaskTrainer) -> None:
        """Count a fit in: where a weight without a mask is another one than in the copy, those of all fits are stacked, too."""
        there = dict(self.net.named_parameters())
        given = {self.names[n] for n in (*trainer.logits, *trainer.constant())}
        self.own |= any(n not in given and not same_bits(p, there[n]) for n, p in trainer.model.named_parameters())

    def losses(self, works: Sequence[Step]) -> tuple[list[Tensor], list[float | Tensor]]:
        """Return what is differentiated for each fit, and its mean loss, with noise from its generators."""
        trainers, samples = [w.trainer for w in works], self.first.samples
        with torch.enable_grad(), self.workspace.active():
            sets = [t.drawn(0, samples) for t in trainers]  # {name: (K, *shape)} each
            sets = [{self.names[n]: w for n, w in one.items()} for one in sets]
            if self.own:
                for one, trainer in zip(sets, trainers, strict=True):
                    for name, p in trainer.model.named_parameters():
                        if name not in one:
                            one[name] = p.detach().expand(samples, *p.shape)
            params = {n: torch.cat([one[n] for one in sets]) for n in sets[0]}  # (R K, *shape)
            leaves = zip(*(w.tree.leaves for w in works), strict=True)
            tree = works[0].tree.with_tensors(
                [row[0].tensor if row[0].shared else torch.cat([leaf.tensor for leaf in row]) for row in leaves]
            )
            self.guard.begin()
            watch = Watch(params, self.guard.memory)
            losses = run_vmap(Job(self.net, self.first.loss, params, tree, samples * len(works), watch=watch))  # (R K,)
            if not isinstance(losses, Tensor) or losses.shape != (samples * len(works),):
                raise ValueError("the loss is no scalar")
            rows = losses.view(len(works), samples).unbind()  # (K,) each
            parts = [row.sum() / (samples * t.divisor) for row, t in zip(rows, trainers, strict=True)]
            totals = [row.detach().sum() for row in rows]
        return parts, [(float(t) if t.device.type == "cpu" else t.double()) / samples for t in totals]

    def wrote(self) -> bool:
        """Return whether the network wrote into its own tensors."""
        if not self.guard.written():
            return False
        self.guard.put_back()
        return True


def _alone(trainer: MaskTrainer) -> str:
    """Return why a fit must run alone; empty where it need not."""
    assert trainer.stacked is not None
    choice = trainer.stacked.choice
    if trainer.gates is not None:
        return "units are not stacked over fits"
    if trainer.layers is not None:
        return "weights are masked layer by layer"
    if trainer.chunk < trainer.samples:
        return "the memory limit cuts the samples of a step"
    if trainer.function is not trainer.loss:
        return "the loss asks for the complement"
    if choice.route != "vmap":
        return f"the samples run by the route {choice.route!r} and not by one vmap"
    if choice.written or choice.wide or choice.sparse:
        return "the network writes into tensors that it holds"
    return ""


def _structure(model: nn.Module) -> Any:
    parameters = [(n, tuple(p.shape), p.dtype, p.device) for n, p in model.named_parameters(remove_duplicate=False)]
    modules = [(n, type_before_parametrizations(m), m.training) for n, m in model.named_modules()]
    return parameters, parameter_names(model), modules, repr(model)


def _alike(one: Tree, other: Tree) -> bool:
    """Return whether two batches of the same structure and shapes agree in all that is not cut into groups."""
    for a, b in zip(one.leaves, other.leaves, strict=True):
        if a.shared and a.tensor is not b.tensor and not same_bits(a.tensor, b.tensor):
            return False
    none: Any = [None] * len(one.leaves)
    return alike(one.rebuild(none), other.rebuild(none))


def _same_function(one: Any, other: Any) -> bool:
    """Return whether two losses are one, now and later: equal ones that hold something of their own may be changed apart."""
    if isinstance(one, functools.partial) and type(one) is type(other):
        if len(one.args) != len(other.args) or one.keywords.keys() != other.keywords.keys() or vars(one) or vars(other):
            return False
        pairs = [*zip(one.args, other.args, strict=True), *((one.keywords[k], other.keywords[k]) for k in one.keywords)]
        return _same_function(one.func, other.func) and all(a is b or (_lasting(a) and alike(a, b)) for a, b in pairs)
    if isinstance(one, types.MethodType) and isinstance(other, types.MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is other


def _lasting(value: Any) -> bool:
    """Return whether a value stays what it is."""
    if isinstance(value, slice):
        return _lasting((value.start, value.stop, value.step))
    return isinstance(value, ATOMS) or (type(value) is tuple and all(map(_lasting, value)))


def _noise(works: Sequence[Step]) -> list[tuple[Tensor, ...]]:
    return [tuple(g.get_state() for g in work.trainer.generators) for work in works]


def _rewind(works: Sequence[Step], states: Sequence[tuple[Tensor, ...]]) -> None:
    for work, own in zip(works, states, strict=True):
        for generator, state in zip(work.trainer.generators, own, strict=True):
            generator.set_state(state)


def _learned(trainer: MaskTrainer) -> list[Tensor]:
    return [*trainer.learned, *trainer.clipping.leaves.values()]


def _same_sum(before: Tensor | None, found: Tensor | None, after: Tensor | None) -> bool:
    """Return whether a gradient that was added to what was there gives, to the bit, what is there now."""
    if found is None or after is None:
        return found is None and (after is None) is (before is None)
    return same_bits(found if before is None else before + found, after)
