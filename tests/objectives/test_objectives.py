"""Objectives against plain torch on deep copies in float64: values, and the gradients that reach every sample's weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import objectives
from modhook.errors import UserError
from modhook.stacked import prepare

K, B, T, C = 3, 4, 5, 6
G = torch.Generator().manual_seed(0)
TOKENS = torch.randint(0, C, (K, B, T), generator=G)
LABELS = torch.randint(0, C, (K, B, T), generator=G)
LABELS[0, :2] = -100
ANSWER, CONTRAST = torch.randint(0, C, (K, B), generator=G), torch.randint(0, C, (K, B, 2), generator=G)
PLACE = torch.randint(-T, T, (K, B), generator=G)


class Net(nn.Module):
    """Embeds tokens, runs a GRU after batch norm, and answers as transformers do: `.logits`, `.loss`."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(C, 7)
        self.norm = nn.BatchNorm1d(7)
        self.gru = nn.GRU(7, 7, batch_first=True)
        self.out = nn.Linear(7, C, bias=False)
        self.out.weight = self.tokens.weight  # tied

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Any:
        """Return logits (B, T, C) for ids (B, T)."""
        x = self.norm(self.tokens(ids).transpose(1, 2)).transpose(1, 2)
        logits = self.out(self.gru(x)[0])
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(logits=logits, loss=loss)


class Stubborn(nn.Module):
    """Looks at a number, which vmap cannot give it: an island."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.3]]))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W, doubled where its first number is positive."""
        y = x @ self.weight
        return 2 * y if float(y.detach().flatten()[0]) > 0 else y


def made(training: bool) -> nn.Module:
    """Return a float64 network with running statistics that are not the initial ones."""
    torch.manual_seed(1)
    net = Net().double()
    net(torch.arange(C)[None].expand(2, C))
    return net.train(training)


def plainly(net: nn.Module, loss: Callable[[nn.Module, int], Tensor], sets: dict[str, Tensor]) -> tuple[Tensor, Any]:
    """Return losses (K,) and the gradients of their sum, by one deep copy per sample."""
    values, gradients = [], []
    for k in range(K):
        twin = copy.deepcopy(net)
        own = dict(twin.named_parameters())
        with torch.no_grad():
            for name, value in sets.items():
                own[name].copy_(value[k])
        value = loss(twin, k)
        found = torch.autograd.grad(value, [own[n] for n in sets], allow_unused=True)
        values.append(value.detach())
        gradients.append([torch.zeros_like(own[n]) if g is None else g for n, g in zip(sets, found, strict=True)])
    return torch.stack(values), [torch.stack(g) for g in zip(*gradients, strict=True)]


def compare(net: nn.Module, objective: Any, batch: Any, right: Callable[[nn.Module, int], Tensor], route: str) -> None:
    """Compare an objective on K groups under K weight sets with a plain loop; the network stays what it was."""
    before = copy.deepcopy(net.state_dict())
    own = {n: p.detach() for n, p in net.named_parameters()}
    sets = {n: (p * (1 + torch.rand(K, *p.shape, generator=G))).requires_grad_() for n, p in own.items()}
    stacked = prepare(net, objective, None, tuple(sets), K, "auto" if route == "islands" else route)
    losses = stacked(sets, batch)  # (K,)
    gradients = torch.autograd.grad(losses.sum(), list(sets.values()))
    values, wanted = plainly(net, right, sets)
    assert stacked.route == route
    torch.testing.assert_close(losses, values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(list(gradients), wanted, rtol=1e-8, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def log_p(net: nn.Module, k: int) -> Tensor:
    """Log-probabilities of group k: (B, T, C)."""
    logits = net(TOKENS[k]).logits
    return logits - logits.exp().sum(-1, keepdim=True).log()


@pytest.mark.parametrize("route", ["vmap", "loop"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", [None, "mask"])
def test_kl_is_the_divergence_from_the_unmasked_network(route: str, training: bool, where: str | None) -> None:
    """sum p log(p/q), p of a deep copy with the own weights on the same items and in the same mode, and no gradient through p."""
    net = made(training)
    unmasked = [log_p(copy.deepcopy(net), k).detach() for k in range(K)]
    counts = (LABELS >= 0).double()

    def right(twin: nn.Module, k: int) -> Tensor:
        p = unmasked[k]
        each = (p.exp() * (p - log_p(twin, k))).sum(-1)
        if where is None:
            return each.mean()
        return (each * counts[k]).sum() / counts[k].sum()

    objective = objectives.kl(net, lambda f, b: f(b["ids"]).logits, where=where)
    compare(net, objective, {"ids": TOKENS, "mask": counts}, right, route)


def test_kl_runs_islands_under_both_weights() -> None:
    """A submodule that runs sample by sample inside vmap has the own weights for the unmasked outputs, too."""
    net = nn.Sequential(nn.Linear(3, 2), Stubborn(), nn.Linear(2, C)).double()
    x = torch.randn(K, B, 3, dtype=torch.float64, generator=G)
    with torch.no_grad():
        p = net[2](torch.stack([net[1](net[0](x[k])) for k in range(K)])).log_softmax(-1)  # (K, B, C)

    def right(twin: nn.Module, k: int) -> Tensor:
        return F.kl_div(twin(x[k]).log_softmax(-1), p[k], log_target=True, reduction="batchmean")

    compare(net, objectives.kl(net), x, right, "islands")


def test_kl_is_zero_where_nothing_is_masked_and_knows_the_weights_under_masks() -> None:
    """With the own weights the divergence is 0; under `applied_to` it is that from the unmasked network."""
    net = made(False)
    batch = {"ids": TOKENS[0], "labels": LABELS[0]}
    objective = objectives.kl(net)
    assert abs(objective(net, batch).item()) < 1e-15
    with torch.no_grad():
        p = log_p(net, 0)
        masks = modhook.Masks({"gru.weight_hh_l0": torch.rand(21, 7, generator=G) > 0.5}, net)
        with masks.applied_to(net):
            found = objective(net, batch)
        q = log_p(masks.materialize(net), 0)
    torch.testing.assert_close(found, (p.exp() * (p - q)).sum(-1).mean())
    assert found > 1e-4


def test_kl_leaves_out_classes_that_cannot_be() -> None:
    """A logit of -inf in both networks is a class less, in the value and in the gradient, and no NaN."""
    net = nn.Linear(4, 3).double()
    x, forbidden = torch.rand(6, 4, dtype=torch.float64, generator=G), torch.tensor([0.0, -math.inf, 0.0])
    objective = objectives.kl(copy.deepcopy(net), lambda f, b: f(b) + forbidden)
    with torch.no_grad():
        p = net(x)[:, [0, 2]].log_softmax(-1)
        net.weight.mul_(2)
    found = objective(net, x)
    right = F.kl_div(net(x)[:, [0, 2]].log_softmax(-1), p, log_target=True, reduction="batchmean")
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(
        torch.autograd.grad(found, net.weight), torch.autograd.grad(right, net.weight), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("route", ["vmap", "loop"])
@pytest.mark.parametrize("ignore", [-100, 2])
def test_cross_entropy_is_the_mean_over_positions_that_count(route: str, ignore: int) -> None:
    """Labels of any shape, ignored ones left out, and a group without any label has the loss 0 and no gradient."""
    net, labels = made(False), torch.where(LABELS == -100, ignore, LABELS)
    labels[2] = ignore

    def right(twin: nn.Module, k: int) -> Tensor:
        q, total, count = log_p(twin, k), 0 * sum(p.sum() for p in twin.parameters()), 0
        for i in range(B):
            for t in range(T):
                if labels[k, i, t] != ignore:
                    total, count = total - q[i, t, labels[k, i, t]], count + 1
        return total / max(1, count)

    objective = objectives.cross_entropy(ignore_index=ignore)
    compare(net, objective, {"ids": TOKENS, "labels": labels}, right, route)
    compare(net, objectives.cross_entropy(ignore_index=ignore), (TOKENS, labels), right, route)


@pytest.mark.parametrize("route", ["vmap", "loop"])
@pytest.mark.parametrize("position", [-1, 1, "place"])
def test_logit_difference_is_answer_against_contrast(route: str, position: Any) -> None:
    """The mean of contrast less answer at each item's position, over several contrasts their mean."""
    net = made(False)

    def right(twin: nn.Module, k: int) -> Tensor:
        logits, total = twin(TOKENS[k]).logits, 0.0
        for i in range(B):
            at = logits[i, PLACE[k, i] if position == "place" else position]
            total = total + at[CONTRAST[k, i, 0]] / 2 + at[CONTRAST[k, i, 1]] / 2 - at[ANSWER[k, i]]
        return total / B

    objective = objectives.logit_difference("answer", "contrast", position=position)
    batch = {"ids": TOKENS, "answer": ANSWER, "contrast": CONTRAST, **({"place": PLACE} if position == "place" else {})}
    compare(net, objective, batch, right, route)


@pytest.mark.parametrize("route", ["vmap", "loop"])
def test_model_loss_is_the_networks_own(route: str) -> None:
    """What the network computes from `labels` itself."""
    net = made(False)
    batch = {"ids": TOKENS, "labels": LABELS.clamp(min=0)}
    right = lambda twin, k: F.nll_loss(log_p(twin, k).flatten(0, 1), LABELS[k].clamp(min=0).flatten())  # noqa: E731
    compare(net, objectives.model_loss(), batch, right, route)


LINEAR = nn.Linear(4, 3)
X, Y = torch.rand(6, 4), torch.arange(6) % 3


def three(net: Any, batch: Any) -> Tensor:
    """Logits at three positions, (B, 3, 3)."""
    logits: Tensor = net(batch[0])[:, None].expand(-1, 3, -1)
    return logits


def third(batch: Any) -> Tensor:
    """What a batch holds third: positions, (B,)."""
    places: Tensor = batch[2]
    return places


@pytest.mark.parametrize(
    ("make", "batch", "message"),
    [
        (objectives.cross_entropy, {"input": X}, r"no labels at 'labels'; it has the keys input: say where with labels="),
        (objectives.cross_entropy, {"input": X, "labels": Y.double()}, "labels must be whole numbers"),
        (objectives.cross_entropy, (X, Y[:, None]), r"labels have shape \(.*1\), but the logits .* need"),
        (objectives.cross_entropy, (X,), "holds no labels at 1; it has tuple"),
        (lambda: objectives.cross_entropy(lambda f, b: f(b[0]).sum(-1)), (X, Y), r"shape \(B, ..., classes\), not"),
        (lambda: objectives.cross_entropy(lambda f, b: [1]), (X, Y), "not list; give outputs="),
        (lambda: objectives.kl(LINEAR, where="w"), {"input": X, "w": Y[:, None]}, "must say of each position"),
        (lambda: objectives.kl(nn.Linear(4, 2)), X, "made for another network than the Linear"),
        (lambda: objectives.logit_difference("a", "b"), {"input": X, "a": Y}, "no contrast at 'b'"),
        (lambda: objectives.logit_difference(1, 2), (X, Y, X), "contrast must be whole numbers"),
        (lambda: objectives.logit_difference(1, 1, lambda f, b: f(b[0])[:, None], position=2), (X, Y), "none is 2"),
        (lambda: objectives.logit_difference(1, 1, three, position=third), (X, Y, Y - 4), "3 positions, and none is -4"),
        (lambda: objectives.logit_difference(1, 1, three, position=third), (X, Y, Y + 1), "3 positions, and none is 3"),
        (lambda: objectives.logit_difference(1, 2), (X, Y, Y + 1), "contrast must be a class from 0 to 2, not 3"),
        (lambda: objectives.logit_difference(1, 2), (X, Y - 1, Y), "answer must be a class from 0 to 2, not -1"),
        (objectives.cross_entropy, (X, Y + 1), "labels must be classes from 0 to 2, but there is 3"),
        (objectives.model_loss, (X, Y), r"calls net\(\*\*batch\), so a batch must be a mapping, not tuple"),
        (objectives.model_loss, {"input": X}, "has no loss: it needs `labels` in the batch"),
        (lambda: objectives.keep_and_lose(objectives.cross_entropy(), 1.0), (X, Y), r"together\(keep=..., lose=...\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_one_sentence(make: Callable[[], Any], batch: Any, message: str) -> None:
    """What an objective misses in a batch or an answer is said by `fit_masks`, with the remedy."""
    with pytest.raises(UserError, match=message) as caught:
        modhook.fit_masks(LINEAR, [batch], make(), steps=1, samples=2, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.kl(LINEAR.forward), "model must be an nn.Module"),
        (lambda: objectives.kl(LINEAR, "logits"), "outputs must be a function"),
        (lambda: objectives.kl(LINEAR, where=True), "where must be a key of the batch"),
        (lambda: objectives.cross_entropy(labels=[1]), "labels must be a key of the batch"),
        (lambda: objectives.cross_entropy(ignore_index=0.5), "ignore_index must be a whole number"),
        (lambda: objectives.logit_difference("a", None), "contrast must be a key"),
        (lambda: objectives.keep_and_lose(1, 1.0), "loss must be a function"),
        (lambda: objectives.keep_and_lose(max, math.inf), "lost must be a finite number"),
        (lambda: objectives.keep_and_lose(max, 1.0, mask=1.0), "mask must be two numbers"),
        (lambda: objectives.keep_and_lose(max, 1.0, mask=(1, -1)), "mask must be a finite number of at least 0"),
        (lambda: objectives.keep_and_lose(max, 1.0, mask=(0, 0), complement=(0, 0)), "every weight .* is 0"),
        (lambda: objectives.together(keep={}, lose=[]), "keep must be an iterable of batches, not one batch"),
    ],
)
def test_a_wrong_argument_is_one_sentence(make: Callable[[], Any], message: str) -> None:
    """Each wrong argument is named when the objective is made."""
    with pytest.raises(UserError, match=message):
        make()
