"""Networks, losses and scores that write into their batch: every number is that of one that does not, and the batch stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.fit.trust import told_later


class Net(nn.Module):
    """Two layers behind a shift and a ReLU of the input, in place or not."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.writes = writes
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.writes:
            x -= 0.25
            x[:, 0] = 1.0
            x = F.relu(x, inplace=True)
        else:
            x = F.relu(torch.cat([torch.ones_like(x[:, :1]), (x - 0.25)[:, 1:]], 1))
        return self.last(self.first(x).relu())  # type: ignore[no-any-return]


def loss(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy; the labels are taken out of the batch."""
    labels = batch.pop("labels")
    return F.cross_entropy(net(batch["x"]), labels)


def score(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """Accuracy; the labels are taken out, and those of class 1 written over."""
    labels = batch.pop("labels")
    found = (net(batch["x"]).argmax(1) == labels).float()
    labels[labels == 1] = 0
    return found


def batches(count: int, seed: int = 1) -> list[dict[str, Tensor]]:
    """Batches of 16 items."""
    rng = torch.Generator().manual_seed(seed)
    return [{"x": (x := torch.randn(16, 6, generator=rng)), "labels": (x[:, :3].sum(1) > 0).long()} for _ in range(count)]


def of_both(act: Any) -> tuple[Any, Any]:
    """Return what both networks give, and require that their batches are as they were."""
    found = []
    for writes in (True, False):
        given = {n: batches(3, i) for i, n in enumerate(("train", "held"))}
        before = copy.deepcopy(given)
        with told_later():
            found.append(act(Net(writes).eval(), given["train"], given["held"]))
        for name, there in given.items():
            for one, other in zip(there, before[name], strict=True):
                assert one.keys() == other.keys()
                assert all(torch.equal(one[k], other[k]) for k in one)
    return found[0], found[1]


@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize(
    "options",
    [{}, {"sampler": "gumbel", "lr": 0.3}, {"score": score, "within": 0.1}, {"among": "integrated_gradients"}],
    ids=["loss", "gumbel", "score", "ranking"],
)
def test_masks_of_a_network_that_writes(options: dict[str, Any], executor: str) -> None:
    """Logits, losses on the way and the cut are those of the network that makes tensors of its own, by every way of choosing a size."""

    def act(net: nn.Module, train: Any, held: Any) -> Any:
        return modhook.fit_masks(net, train, loss, valid=held, steps=60, samples=4, executor=executor, progress=False, **options)

    one, other = of_both(act)
    for name in one.logits:
        torch.testing.assert_close(one.logits[name], other.logits[name])
    assert one.masks.kept() == other.masks.kept()
    for measured in ("loss", "mask_loss", "unmasked_loss"):
        torch.testing.assert_close(*(torch.tensor(f.history[measured].values) for f in (one, other)), equal_nan=True)


def test_everything_else_that_calls_a_network() -> None:
    """Scores again and again, curves, base training, and what looks at a network with an example."""

    def act(net: nn.Module, train: Any, held: Any) -> Any:
        fit = modhook.fit_masks(net, train, loss, sampler="gumbel", lr=0.3, steps=40, samples=4, progress=False)
        scores = [modhook.evaluate(net, masks, held, score) for masks in (None, fit.masks, None)]
        curve = fit.curve(held, score)["score"].values.tolist()
        modhook.inspect(net, train[0]["x"])
        modhook.units(net, example=((held[0]["x"],), {}))
        modhook.stack(net, ((train[1]["x"],), {}))
        net.train()
        history = modhook.train(net, train, loss, 6)
        return scores, curve, history["loss"].values.tolist(), fit.smallest(held, score, within=0.2).kept()

    one, other = of_both(act)
    assert one == other
    assert one[0][0] == one[0][2]


def test_a_question_to_a_network_that_writes(tmp_path: Any) -> None:
    """`ask` gives the same answer, on batches that stay as they were."""

    def act(net: nn.Module, train: Any, held: Any) -> Any:
        options: dict[str, Any] = {"loss": loss, "score": score, "seeds": 1, "steps": 20, "samples": 4, "progress": False}
        answer = modhook.ask(net, {"a": train}, tests={"a": held}, **options)
        assert not answer.failed
        return str(answer).splitlines()[1:]

    one, other = of_both(act)
    assert one == other


def test_targets_that_the_network_itself_computed() -> None:
    """A forgotten `.detach()` leads nowhere: the same masks, and no gradient in the network's weights or in the input."""

    def made(net: nn.Module, *, detached: bool) -> Iterator[tuple[Tensor, Tensor]]:
        rng = torch.Generator().manual_seed(1)
        while True:
            x = torch.randn(16, 6, generator=rng).requires_grad_(not detached)
            y = net(x)[:, 0]
            yield x, y.detach() if detached else y

    found = []
    for detached in (False, True):
        net = Net(writes=False).eval()
        given: Any = made(net, detached=detached)
        with told_later():
            fit = modhook.fit_masks(
                net, given, lambda n, b: F.mse_loss(n(b[0])[:, 0], b[1]), sampler="gumbel", lr=0.3, steps=30, samples=4, progress=False
            )
        assert all(p.grad is None for p in net.parameters())
        found.append(fit.logits)
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])
