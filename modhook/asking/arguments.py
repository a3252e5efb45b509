"""What `ask` was given, checked before anything is written, and made into a question."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modhook.asking.batches import Items, Store, Whole, digest_of, gather
from modhook.asking.dependence import check_loss, check_score
from modhook.asking.names import among, mapping, named, per_function
from modhook.asking.nonsense import classes
from modhook.asking.seen import told_of_seen
from modhook.asking.source import plain_of, source_of, sources_of
from modhook.asking.task import GIVEN, AskOptions, Question, scores_of
from modhook.asking.units import Over
from modhook.errors import ModhookError, ModhookWarning, TrustWarning, UserError, listing
from modhook.fit.groups import batch_size
from modhook.fit.off import kept
from modhook.fit.usual import most_samples
from modhook.masks.off import NOTHING, off_weights, the_same
from modhook.network.called import hearing
from modhook.network.held import held
from modhook.network.owned import handed
from modhook.network.threads import using
from modhook.network.twin import twin
from modhook.plugin.culprit import told
from modhook.stacked.checks import refuse
from modhook.values.arguments import checked, function, instance, optional, shown
from modhook.values.bounds import Count
from modhook.values.randomness import seeded

_FEW = 8
"""Items that losses and scores are tried on."""


def asked(
    model: Any,
    functions: Any,
    loss: Any,
    score: Any,
    tests: Any,
    nonsense: Any,
    steps: Any,
    samples: Any,
    over: Over,
    off: Any,
    batch: int | None = None,
) -> tuple[Question, AskOptions, int]:
    """Return the question, what the cube records of it, and the items of a step. Raises `UserError`."""
    instance("model", model, nn.Module, "an nn.Module")
    refuse(model)
    steps, samples = checked("steps", steps, Count), optional("samples", samples, Count)
    mapping("functions", functions)
    wanted = named("functions", functions)
    held_out = {} if tests is None else _tests(tests, wanted)
    losses = per_function("loss", loss, wanted, "loss(net, batch)")
    scores = per_function("score", score, wanted, "score(net, batch)")
    told_loss, told_score = _sources("loss", losses), _sources("score", scores)
    if nonsense is not None:
        function("nonsense", nonsense, "nonsense(batch, seed)")
    becomes, its_name = _off(model, over.masked.parameters, off)
    stores = {n: gather(f"the batches of {n!r}", given, 1, steps) for n, given in wanted.items()}
    if samples is None:
        weights = sum(model.get_parameter(n).numel() for n in over.masked.parameters)
        samples = _usual(stores.values(), batch, most_samples(weights))
    stores = {n: store.cut(f"the batches of {n!r}", samples) if isinstance(store, Whole) else store for n, store in stores.items()}
    _alike("batches", stores, losses)
    missing = [name for name in wanted if name not in held_out]
    measured = {n: gather(f"the tests of {n!r}", held_out[n], 0, steps) if n in held_out else stores[n] for n in wanted}
    again = told_of_seen(stores, {n: measured[n] for n in held_out})
    if any(isinstance(store, Whole) for store in measured.values()):  # then all of them are measured batch by batch
        measured = {n: store.whole() if isinstance(store, Items) else store for n, store in measured.items()}
    _alike("tests", measured, scores)
    metrics = _try(model, stores, measured, losses, scores, nonsense)
    if missing:
        text = f"no held-out tests for {listing(map(repr, missing))}: their scores say what their masks do on the batches that the masks"
        warnings.warn(ModhookWarning(f"{text} were learned on; give tests={{name: batches}}."), stacklevel=3)
    if again:
        warnings.warn(ModhookWarning(again), stacklevel=3)
    found = {name: classes(stores[name], measured[name]) for name in wanted}
    question = Question(
        model=twin(model),
        batches=stores,
        makers={name: given for name, given in wanted.items() if _makes(given)},
        tests=measured,
        loss=losses,
        score=scores,
        metrics=metrics,
        nonsense=nonsense,
        classes={name: known for name, known in found.items() if known is not None},
        most=steps,
        samples=samples,
        off=becomes,
        off_name=its_name,
        units=over.offered,
    )
    options = AskOptions(
        functions=tuple(wanted),
        network=_network(model),
        batches={name: store.fingerprint for name, store in stores.items()},
        tests={name: measured[name].fingerprint for name in wanted if name in held_out},
        loss=told_loss,
        score=told_score,
        nonsense="" if nonsense is None else source_of("nonsense", nonsense),
    )
    size = min(store.size for store in stores.values())
    return question, options, max(samples, size - size % samples)


def _usual(stores: Iterable[Store], batch: int | None, most: int) -> int:
    """Return how many mask samples a step draws: `most`, or fewer where `batch` or batches that stay whole have not enough items."""
    most = min([most, *(batch_size(whole) for store in stores if isinstance(store, Whole) for whole in store.batches)])
    return most if batch is None else max(k for k in range(1, most + 1) if batch % k == 0)


def _tests(tests: Any, functions: Mapping[str, Any]) -> dict[str, Any]:
    mapping("tests", tests)
    return among("tests", tests, functions)


def _off(model: nn.Module, names: Sequence[str], off: Any) -> tuple[str | dict[str, Tensor], str]:
    """Return what masked weights become, tensors on the CPU, and its name in the study, by which another one is noticed."""
    with using(model):
        found = kept(off_weights(model, names, off))
        if found is None or isinstance(off, str):
            return ("zero", "zero") if found is None else (off, off)
        if the_same(model, found):
            warnings.warn(NOTHING, TrustWarning, stacklevel=4)
    return found, f"{GIVEN} {digest_of(sorted(found.items()))}"


def _makes(given: Any) -> bool:
    return callable(given) and not hasattr(given, "__iter__")


def _sources(what: str, given: Mapping[str, Callable[..., Any]]) -> str | dict[str, str]:
    """Return one text where one function serves all."""
    every = list(given.values())
    if all(one is every[0] or (isinstance(one, types.MethodType) and one == every[0]) for one in every):
        return source_of(f"the {what}", every[0])
    return sources_of(what, given)


def _alike(what: str, stores: Mapping[str, Store], used: Mapping[str, Callable[..., Any]]) -> None:
    """Batches that one loss or score takes must have one structure."""
    first: dict[int, str] = {}
    for name, store in stores.items():
        other = first.setdefault(id(used[name]), name)
        if stores[other].kind != store.kind:
            raise UserError(
                f"the {what} of {other!r} and {name!r} have different structures, {stores[other].kind} and {store.kind}; give all of "
                "them the same, or each function its own loss and score."
            )


def _network(model: nn.Module) -> str:
    """Return a fingerprint of a network: its modules with their plain attributes, and every tensor that it holds."""
    kinds = [f"{name}:{type(module).__module__}.{type(module).__qualname__}" for name, module in model.named_modules()]
    tensors = sorted((n, t) for n, t in held(model).tensors.items() if not t.is_meta)
    words = "\n".join([*kinds, repr(model), plain_of(model)])
    nothing = torch.empty(0, device="cpu")
    return f"{type(model).__qualname__} {digest_of([(words, nothing), *tensors])}"


def _try(
    model: nn.Module,
    batches: Mapping[str, Store],
    tests: Mapping[str, Store],
    losses: Mapping[str, Callable[..., Any]],
    scores: Mapping[str, Callable[..., Any]],
    nonsense: Callable[..., Any] | None,
) -> tuple[str, ...]:
    """Try every loss and every score once, on a copy of the network, also on nonsense; return the metrics. Raises `UserError`."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    net = twin(model).eval().requires_grad_()
    metrics: tuple[str, ...] | None = None
    first = ""
    with seeded(0):
        for name, store in batches.items():
            batch = store.take(torch.arange(min(_FEW, len(store)), device=device))
            with hearing(model) as heard:
                loss = _of(f"the loss of {name!r} fails on its first batch", losses[name], net, handed(batch))
            _check_loss(name, loss)
            check_loss(f"the loss of {name!r}", model, net, loss, heard)
            if nonsense is not None:
                spoiled = _of(f"nonsense fails on the first batch of {name!r}", nonsense, batch, 0)
                _check_loss(name, _of(f"the loss of {name!r} fails on what nonsense returns", losses[name], net, handed(spoiled)))
        for name, store in tests.items():
            batch = store.take(torch.arange(min(_FEW, len(store)), device=device))
            with torch.no_grad():
                with hearing(model) as heard:
                    found = _of(f"the score of {name!r} fails on its first batch", scores[name], net, handed(batch))
                own = _check_scores(name, found, _items(store, len(store)))
                again = partial(_scored, scores[name], net, batch)
                check_score(f"the score of {name!r}", net, again, scores_of(found), heard)
            if metrics is not None and own != metrics:
                raise UserError(
                    f"the score of {name!r} returns {listing(own)}, but that of {first!r} {listing(metrics)}; one cube needs the same."
                )
            metrics, first = own, name
    assert metrics is not None
    return metrics


def _scored(score: Callable[..., Any], net: nn.Module, batch: Any) -> dict[str, Tensor]:
    return scores_of(score(net, handed(batch)))


def _items(store: Store, count: int) -> int:
    return store.size if isinstance(store, Whole) else min(_FEW, count)


def _of(what: str, call: Callable[..., Any], *given: Any) -> Any:
    try:
        return call(*given)
    except ModhookError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {told(error)}.") from error


def _check_loss(name: str, loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.dim():
        raise UserError(
            f"the loss of {name!r} must return one number, a tensor of shape (), not {shown(loss)}; return its mean."
        )
    if not loss.requires_grad:
        raise UserError(f"the loss of {name!r} does not depend on the network's weights; does it call `net`?")


def _check_scores(name: str, found: Any, items: int) -> tuple[str, ...]:
    if not isinstance(found, Tensor | Mapping) or not len(found if isinstance(found, Mapping) else "x"):
        raise UserError(
            f"the score of {name!r} must return one number per item, a tensor (B,), or {{metric: such a tensor}}, not {shown(found)}."
        )
    known: Iterable[tuple[str, Any]] = scores_of(found).items()
    for metric, values in known:
        if isinstance(values, Tensor) and not bool(torch.isfinite(values.double() if not values.is_complex() else values).all()):
            raise UserError(f"the score of {name!r} is not finite on its first batch; return one finite number per item.")
        if not isinstance(values, Tensor) or tuple(values.shape) != (items,):
            which = "" if isinstance(found, Tensor) else f" for {metric!r}"
            raise UserError(
                f"the score of {name!r} must return one number per item{which}, shape ({items},) for a batch of {items}, not "
                f"{shown(values)}."
            )
    return tuple(metric for metric, _ in known)
