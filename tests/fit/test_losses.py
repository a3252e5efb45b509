"""Losses and optimisers that cannot teach masks anything are explained in one sentence that names the remedy."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.errors import PatternError, UserError

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def fit(model: nn.Module, loss: Any, **options: Any) -> modhook.Fit:
    """One step under two masks, unless told otherwise."""
    given = {"steps": 1, "samples": 2, "progress": False} | options
    return modhook.fit_masks(model, [(X, Y)], loss, **given)


def cross_entropy(net: Callable[..., Tensor], batch: Any) -> Tensor:
    """Cross-entropy of a classifier."""
    return F.cross_entropy(net(batch[0]), batch[1])


def _without_gradient(net: Callable[..., Tensor], batch: Any) -> Tensor:
    with torch.no_grad():
        return cross_entropy(net, batch)


@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda f, b: b[0].mean(), "does not call `net`, its first argument"),
        (_without_gradient, r"calls `net` under torch.no_grad\(\); take that out of the loss"),
        (lambda f, b: cross_entropy(f, b).detach(), "check the patterns, or whether the loss detaches"),
        (
            lambda f, b: (f(b[0]).argmax(-1) == b[1]).double().mean(),
            r"detaches: detach\(\), item\(\), numpy\(\), argmax\(\)",
        ),
        (
            lambda f, b: cross_entropy(f, b).item(),
            "one scalar tensor per call, but returned float; return the tensor itself",
        ),
        (lambda f, b: f(b[0]), r"one scalar tensor per call, but returned a tensor of shape \(4, 3\); take its mean"),
        (lambda f, b: {"loss": cross_entropy(f, b)}, "one scalar tensor per call, but returned dict; return its \\['loss'\\]"),
        (lambda f, b: None, "one scalar tensor per call, but returned None; is a `return` missing, or does the batch lack the labels"),
        (lambda f, b: f(b[0]).mean() * 1j, "loss must return a real number, but returned a complex one"),
    ],
)
def test_a_loss_without_a_gradient_names_its_remedy(loss: Any, message: str, executor: str) -> None:
    """Each kind of useless loss gets its own sentence."""
    with pytest.raises(UserError, match=message) as caught:
        fit(nn.Linear(4, 3), loss, executor=executor)
    assert "\n" not in str(caught.value)


def by_teacher(net: Any, batch: Any, teacher: nn.Module) -> Tensor:
    """Cross-entropy against what a teacher says, through which no gradient leads."""
    return F.cross_entropy(net(batch[0]), teacher(batch[0]).argmax(-1))


class Teaching:
    """A loss that keeps its teacher."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher

    def __call__(self, net: Any, batch: Any) -> Tensor:
        return by_teacher(net, batch, self.teacher)

    def loss(self, net: Any, batch: Any) -> Tensor:
        return by_teacher(net, batch, self.teacher)


def test_another_network_may_teach() -> None:
    """A copy, and the network without its masks in `modhook.unmasked`, teach what precomputed targets teach; a loss is called as often."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    teacher, calls = copy.deepcopy(model), dict[str, int]()

    def alone(net: Any, batch: Any) -> Tensor:
        with modhook.unmasked(net):
            targets = net(batch[0]).argmax(-1)
        return F.cross_entropy(net(batch[0]), targets)

    def counted(net: Any, batch: Any, name: str = "teacher") -> Tensor:
        calls[name] = calls.get(name, 0) + 1
        return by_teacher(net, batch, teacher)

    batches, options = [(X, teacher(X).argmax(-1))], {"steps": 3, "samples": 2, "progress": False, "executor": "loop"}
    expected = modhook.fit_masks(model, batches, functools.partial(counted_labels, calls), **options)
    for loss in (alone, functools.partial(by_teacher, teacher=teacher), counted):
        assert torch.equal(fit(model, loss, steps=3, executor="loop").logits["0.weight"], expected.logits["0.weight"])
    assert calls["teacher"] == calls["labels"]


def counted_labels(calls: dict[str, int], net: Any, batch: Any) -> Tensor:
    """Cross-entropy that counts its calls, and reaches no other network."""
    calls["labels"] = calls.get("labels", 0) + 1
    return cross_entropy(net, batch)


@pytest.mark.parametrize("executor", ["auto", "loop", "vmap"])
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda model: lambda f, b: cross_entropy(model, b), "the loss calls the model itself, .* instead of `net`"),
        (
            lambda model: lambda f, b: cross_entropy(lambda x: model[1](f[0](x)), b),
            "the loss calls the model's own submodule '1', .* call `net`",
        ),
        (
            lambda model: lambda f, b: F.mse_loss(f(b[0]), model(b[0]).detach()),
            "outputs of the network without masks belong into the batches",
        ),
        (
            lambda model: lambda f, b: F.cross_entropy(f(b[0]), model(b[0]).argmax(-1)),
            "the loss calls the model itself",
        ),
        (lambda model: functools.partial(by_teacher, teacher=model), "the loss calls the model itself"),
        (lambda model: Teaching(model), "the loss calls the model itself"),
        (lambda model: Teaching(model).loss, "the loss calls the model itself"),
    ],
)
def test_a_loss_that_calls_the_model_is_told_to_call_net(part: Any, message: str, executor: str) -> None:
    """A loss that calls the user's own network, whole, in part or as a teacher, is sent to `net` and nowhere else."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    with pytest.raises(UserError, match=message):
        fit(model, part(model), executor=executor)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("executor", ["auto", "loop", "vmap"])
def test_a_loss_that_computes_with_a_weight_by_a_variable(executor: str) -> None:
    """A masked weight, or a view of it, has no mask by a variable: refused by name; nothing on which the loss does not depend is."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3, bias=False))
    weight, view, apart = model[1].weight, model[1].weight.T, model[1].weight.detach()
    model.temperature, seen = 2.0, list[float]()

    def by(matrix: Tensor) -> Callable[[Any, Any], Tensor]:
        return lambda net, batch: F.cross_entropy(net[0](batch[0]) @ matrix, batch[1])

    def looks(net: Any, batch: Any) -> Tensor:
        with torch.no_grad():
            seen.append(float(weight.norm()))
        scale = torch.ones_like(weight).sum() if weight.grad is None and torch.isfinite(weight).all() else weight.new_zeros(())
        return cross_entropy(net, batch) * scale.to(weight) / weight.shape[1]

    def distils(net: Any, batch: Any) -> Tensor:
        with modhook.unmasked(net), torch.no_grad():
            targets = net(batch[0]).softmax(-1)
        return F.cross_entropy(net(batch[0]) / model.temperature, targets)

    for loss in (by(view), lambda net, batch: F.cross_entropy(F.linear(net[0](batch[0]), weight), batch[1])):
        for frozen in (False, True):
            weight.requires_grad_(not frozen)
            with pytest.raises(UserError, match=r"the model's own '1\.weight', by a variable, .*get_parameter\('1\.weight'\)"):
                fit(model, loss, executor=executor)
            assert weight.requires_grad == (not frozen)
        weight.requires_grad_()
        fit(model, loss, executor=executor, include="0.*", steps=2)
    for loss in (by(apart.T), looks, distils, lambda net, batch: F.cross_entropy(net[0](batch[0]) @ net[1].weight.T, batch[1])):
        fit(model, loss, executor=executor, steps=2)
    assert seen


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fit_within_no_grad_learns_as_outside(mode: Callable[[], Any]) -> None:
    """Under no_grad and inference_mode, batches included, the masks are those learned outside."""
    model = nn.Linear(4, 3)
    expected = fit(model, cross_entropy, steps=3)
    with mode():
        batches = [(X.clone(), Y.clone())]
        found = modhook.fit_masks(model, batches, cross_entropy, steps=3, samples=2, progress=False)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.logits["weight"], expected.logits["weight"])


def test_an_optimizer_keeps_its_own_learning_rate() -> None:
    """A callable's rates, one per group, are its own; warm-up rises to them; the class of an optimiser is made with `lr`."""
    rates: list[list[float]] = []

    def groups(tensors: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": tensors[:1], "lr": 0.5}, {"params": tensors[1:]}], lr=0.25)

    def note(step: int, trainer: Any) -> None:
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])

    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    fit(net, cross_entropy, steps=4, warmup=2, lr=7.0, optimizer=groups, callback=note)
    assert rates == [[0.25, 0.125], [0.5, 0.25], [0.5, 0.25], [0.5, 0.25]]
    rates.clear()
    fit(net, cross_entropy, steps=2, lr=0.125, optimizer=torch.optim.AdamW, callback=note)
    assert rates == [[0.125], [0.125]]
    made: list[Any] = []

    def scheduled(tensors: list[Tensor]) -> torch.optim.Optimizer:
        made.append(torch.optim.lr_scheduler.ExponentialLR(torch.optim.SGD(tensors, lr=1.0), 0.5))
        return made[0].optimizer  # type: ignore[no-any-return]

    rates.clear()
    fit(net, cross_entropy, steps=3, optimizer=scheduled, callback=lambda s, t: (note(s, t), made[0].step()))
    assert rates == [[1.0], [0.5], [0.25]]
    history = modhook.train(
        nn.Linear(4, 3),
        [(X, Y)],
        cross_entropy,
        1,
        optimizer=lambda ps: made.append(torch.optim.SGD(ps, lr=0.5)) or made[-1],
    )
    assert history["loss"].size == 1
    assert made[-1].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.LBFGS, "the optimizer LBFGS computes the loss several times per step"),
        (lambda tensors: torch.optim.LBFGS(tensors), "the optimizer LBFGS computes the loss several times per step"),
        (lambda tensors: None, "optimizer must return a torch.optim.Optimizer of the tensors it is given, not None"),
        (
            lambda tensors: torch.optim.SGD(tensors[:1], lr=1.0),
            "the optimizer SGD leaves out 1 of the 2 tensors it is given",
        ),
        (
            lambda tensors: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
            "the optimizer SGD leaves out 2 of the 2 tensors",
        ),
    ],
)
def test_an_unusable_optimizer_is_one_sentence(optimizer: Any, message: str) -> None:
    """Optimisers that want a closure, or not the tensors that learn, are refused before the first step."""
    with pytest.raises(UserError, match=message):
        fit(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), cross_entropy, optimizer=optimizer)
    with pytest.raises(UserError, match="computes the loss several times per step"):
        modhook.train(nn.Linear(4, 3), [(X, Y)], cross_entropy, 1, optimizer=torch.optim.LBFGS)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a[0].weight", {"a[0].weight"}),
        ("a[0].*", {"a0.weight"}),
        ("a[1].*", {"a[1].weight"}),
        ("a[[]0].*", {"a[0].weight"}),
        ("*[[]?].weight", {"a[0].weight", "a[1].weight"}),
        ("b?.weight", {"b?.weight"}),
        ("b?.*", {"b?.weight", "bc.weight"}),
        ("a[01]*", {"a0.weight"}),
        ("c*d.weight", {"c*d.weight"}),
    ],
)
def test_glob_signs_in_names(pattern: str, found: set[str]) -> None:
    """A whole name is that parameter whatever signs are in it; brackets that match nothing stand for themselves."""
    names = ("a[0]", "a[1]", "a0", "b?", "bc", "c*d")
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in names})
    assert set(modhook.select(model, include=pattern)) == found
    with pytest.raises(PatternError, match=r"'a\[2\]\.weight' matches no parameter"):
        modhook.select(model, include="a[2].weight")


def test_a_part_of_a_batch_that_fails_where_the_whole_passes() -> None:
    """An index into a batch that is cut into groups is out of bounds there: the note says so, and `modhook.shared` and samples=1 help."""
    edges = torch.stack([torch.arange(8), torch.arange(8).roll(1)], 1)  # (8, 2): as many as there are nodes

    def loss(net: Any, batch: Any) -> Tensor:
        nodes, ring = batch
        out: Tensor = (net(nodes)[ring[:, 0]] - nodes[ring[:, 1], :3]).square().mean()
        return out

    model = nn.Linear(4, 3)
    with pytest.raises(IndexError) as caught:
        modhook.fit_masks(model, [(X, edges)], loss, steps=1, samples=2, progress=False)
    (note,) = [n for n in caught.value.__notes__ if n.startswith("The whole batch passes")]
    assert "cut into 2 groups of items, one per mask sample" in note
    modhook.fit_masks(model, [(X, edges)], loss, steps=1, samples=1, progress=False)
    with pytest.raises(RuntimeError) as caught_too:
        fit(nn.Linear(5, 3), cross_entropy)
    assert not any("whole batch" in note for note in getattr(caught_too.value, "__notes__", []))


def test_what_is_shared_reaches_scores_and_training_as_itself() -> None:
    """`modhook.shared` in a batch is what it holds for `evaluate`, cuts by a score, `train` and `ask`, as for a loss of `fit_masks`."""
    torch.manual_seed(0)
    model, scale = nn.Linear(4, 3), modhook.shared(torch.full((8,), 2.0))  # as many numbers as a batch has items

    def loss(net: Any, batch: Any) -> Tensor:
        return F.cross_entropy(net(batch[0]) * batch[2].mean(), batch[1])

    def score(net: Any, batch: Any) -> Tensor:
        return ((net(batch[0]) * batch[2].mean()).argmax(-1) == batch[1]).float()

    batches, plain = [(X, Y, scale)], [(X, Y, scale.value)]
    modhook.train(model, batches, loss, steps=2)
    found = modhook.fit_masks(model, batches, loss, steps=2, samples=2, score=score, valid=batches, within=0.5, progress=False)
    assert modhook.evaluate(model, found.masks, batches, score) == modhook.evaluate(model, found.masks, plain, score)
    held = {"f": [(X + 1, Y, scale)]}
    answer = modhook.ask(
        model, {"f": batches}, loss=loss, score=score, tests=held, seeds=1, steps=2, samples=2, progress=False, analyses=()
    )
    assert ("f", 1) in answer.masks
