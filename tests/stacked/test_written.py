"""Masked weights that forward writes, and lookups with sparse gradients, against plain copies by every executor."""

from __future__ import annotations

import pytest
import stacked_loops as loops
import torch
from torch import nn
from torch.nn import functional as F

import modhook
from modhook.stacked import stack

K = 2


class Words(nn.Module):
    """A lookup of words, by rows or by bags, and a readout."""

    def __init__(self, bag=False, direct=False, **options):
        super().__init__()
        kind = nn.EmbeddingBag if bag else nn.Embedding
        options |= {"mode": "sum"} if bag else {}
        self.emb, self.out = kind(10, 4, **options), nn.Linear(4, 2)
        self.bag, self.direct = bag, direct

    def forward(self, ids):
        if self.direct:
            return self.out(torch.embedding(self.emb.weight, ids, sparse=True).sum(1))
        return self.out(self.emb(ids) if self.bag else self.emb(ids).sum(1))


class Positive(nn.Module):
    """A weight that forward clamps."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 2))

    def forward(self, ids):
        with torch.no_grad():
            self.w.clamp_(min=0)
        return ids.to(self.w.dtype) @ self.w


BUILD = {
    "sparse": lambda: Words(sparse=True),
    "sparse bag": lambda: Words(bag=True, sparse=True),
    "torch.embedding": lambda: Words(direct=True),
    "sparse, rows shrunk": lambda: Words(sparse=True, max_norm=0.5),
    "sparse, a padding row": lambda: Words(sparse=True, padding_idx=0),
    "rows shrunk": lambda: Words(max_norm=0.5),
    "rows that are short enough": lambda: Words(max_norm=1e3),
    "bag, rows shrunk": lambda: Words(bag=True, max_norm=0.5),
    "clamped": Positive,
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("samples", [1, K])
@pytest.mark.parametrize("executor", ["auto", "loop", "fastest"])
@pytest.mark.parametrize("name", BUILD)
def test_stacked(name, executor, samples):
    """Outputs and gradients are those of plain copies; gradients are dense; the given weights are as they were."""
    model, ids = BUILD[name](), torch.randint(0, 10, (samples, 6, 3))
    sets = loops.parameter_sets(model, samples)
    given = {n: s.detach().clone() for n, s in sets.items()}
    right = []
    gradients: dict[str, list[torch.Tensor]] = {n: [] for n in sets}
    for k in range(samples):
        plain = BUILD[name]()
        plain.load_state_dict({n: s[k].detach() for n, s in sets.items()})
        right.append(plain(ids[k]))
        right[-1].square().sum().backward()
        for n, p in plain.named_parameters():
            gradients[n].append(p.grad.to_dense())
    out = stack(model, ((ids[0],), {}), samples=samples, executor=executor)(sets, ids)
    torch.testing.assert_close(out.detach(), torch.stack(right).detach(), rtol=0, atol=1e-12)
    out.square().sum().backward()
    for n, s in sets.items():
        torch.testing.assert_close(s.grad, torch.stack(gradients[n]), rtol=0, atol=1e-12)
        assert torch.equal(s.detach(), given[n])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize("name", BUILD)
def test_fit_masks(name, executor):
    """The first loss with all weights kept is that of plain copies on the groups; the network is as it was."""
    torch.manual_seed(0)
    model, ids = BUILD[name]().double(), torch.randint(0, 10, (8, 3))
    y, before = torch.randn(8, 2).double(), {n: p.detach().clone() for n, p in model.named_parameters()}
    right = []
    for group, target in zip(ids.chunk(K), y.chunk(K), strict=True):
        plain = BUILD[name]().double()
        plain.load_state_dict(before)
        right.append(F.mse_loss(plain(group), target).item())
    fit = modhook.fit_masks(
        model, [(ids, y)], lambda net, b: F.mse_loss(net(b[0]), b[1]), steps=2, samples=K, init=60.0, include="*",
        executor=executor, progress=False,
    )  # fmt: skip
    assert fit.history["loss"].values[0] == pytest.approx(sum(right) / K, abs=1e-9)
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n])


def test_sparse_in_inspect():
    """A report on a network with sparse gradients is made like any other."""
    report = modhook.inspect(Words(sparse=True), torch.randint(0, 10, (6, 3)), samples=K)
    assert set(report.errors) == {"vmap", "loop"}


def test_input_written_in_place():
    """A network that writes into its input during the check leaves the example as it was."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 2)

        def forward(self, x):
            return self.out(x.mul_(2))

    x = torch.randn(4, 3)
    kept = x.clone()
    stack(Writes(), ((x,), {}), samples=K)
    assert torch.equal(x, kept)
