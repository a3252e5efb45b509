"""Base training spread over real processes, against one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional as F

from modhook import Tracker, train


class Counted(nn.Module):
    """A network of tokens that counts the items of its calls in training mode; one parameter is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(9, 4), nn.Linear(4, 5)
        self.unused = nn.Parameter(torch.ones(2))
        self.calls: list[int] = []

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        if self.training:
            self.calls.append(len(tokens))
        inside = torch.arange(tokens.shape[1]) < length[:, None]  # (B, T)
        return self.output(torch.tanh(self.embedding(tokens) * inside[..., None]).cumsum(1))  # (B, T, 5)


class TimeFirst(Counted):
    """Takes (T, B), with more steps than ranks, so that the items of a cut along the first dimension are not alone."""

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        return super().forward(tokens.T, length[: tokens.shape[1]]).transpose(0, 1).cumsum(0)


class Trimmed(Counted):
    """Its outputs are as long as its longest item, which differs between ranks."""

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        return super().forward(tokens[:, : int(length.max())], length)


def by_token(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """A mean over valid tokens, which is no mean over items, with a regulariser of a weight that no call sees."""
    logits = net(batch["tokens"], length=batch["length"])
    valid = torch.arange(logits.shape[1]) < batch["length"][:, None]
    loss = F.cross_entropy(logits[valid], batch["target"][:, : logits.shape[1]][valid])
    return loss + 0.1 * net.output.weight.square().sum()


def time_first(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """A loss of a network that takes the time first."""
    return net(batch["tokens"].T.contiguous(), batch["length"]).square().mean()


def broken(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """Fail on rank 1 alone, after the network was called."""
    loss = by_token(net, batch)
    if dist.get_rank() == 1:
        raise ValueError("broken on purpose")
    return loss


class Said(Tracker):
    """Remembers messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


CASES: dict[str, tuple[type[Counted], Callable[..., Tensor], int]] = {
    "tokens": (Counted, by_token, 12),
    "a batch that the ranks do not divide": (Counted, by_token, 7),
    "fewer items than ranks": (Counted, by_token, 1),
    "time first": (TimeFirst, time_first, 6),
    "trimmed": (Trimmed, by_token, 6),
}


def trained(case: str) -> tuple[dict[str, Tensor], list[int], list[str], Tensor]:
    """Train in float64, whose sums hardly depend on their order; return weights, items per call, messages, norms."""
    kind, loss, items = CASES[case]
    torch.manual_seed(0)
    model, said = kind().double(), Said()
    length = torch.randint(1, 7, (items,))
    batch = {"tokens": torch.randint(9, (items, 6)), "length": length, "target": torch.randint(5, (items, 6))}
    history = train(model, [batch], loss, 4, said, optimizer="sgd", lr=0.5, clip=0.8)
    return model.state_dict(), model.calls, said.texts, torch.tensor(history["gradient_norm"].values)


def work(rank: int, size: int, folder: str) -> None:
    """One rank: train every case, then fail together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    torch.save({case: trained(case) for case in CASES}, f"{folder}/{rank}.pt")
    for function, name in (
        (broken, "broken"),
        (lambda net, batch: by_token(net, {**batch, "tokens": batch["tokens"] * rank}), "other"),
    ):
        try:
            torch.manual_seed(0)
            batch = {"tokens": torch.ones(4, 3).long(), "length": torch.ones(4), "target": torch.ones(4, 3).long()}
            train(Counted(), [batch], function, 2)
        except Exception as error:
            Path(folder, f"{rank}-{name}.txt").write_text(f"{type(error).__name__}: {error}")
    os._exit(0)  # all is written; gloo's threads may abort a process that takes its group down beside others


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_what_one_process_trains(tmp_path: Path, size: int) -> None:
    """Weights and norms after steps from equal weights agree to 1e-9, whatever the loss; items are shared where that is exact."""
    mp.spawn(work, (size, str(tmp_path)), nprocs=size)
    every = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    for case in CASES:
        weights, calls, _, norms = trained(case)
        assert set(calls) == {CASES[case][2]}
        for rank in range(size):
            found, own, said, lengths = every[rank][case]
            for name, tensor in weights.items():
                torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)
            torch.testing.assert_close(lengths, norms, rtol=1e-9, atol=0)
            if case in ("tokens", "a batch that the ranks do not divide"):
                assert said == [f"base training is spread over {size} ranks, which share each batch"]
                share = CASES[case][2] // size
                assert set(own) <= {share, share + 1}
            else:
                assert set(own) == set(calls) or case == "trimmed"
                assert len(said) == 1
                assert said[0].startswith(f"base training is not spread over the {size} ranks: ")
    told = "rank 1 stopped: ValueError: broken on purpose"
    assert (tmp_path / "0-broken.txt").read_text() == f"RunError: {told}"
    assert (tmp_path / "1-broken.txt").read_text() == "ValueError: broken on purpose"
    for rank in range(size):
        assert "the ranks differ in the batches of base training" in (tmp_path / f"{rank}-other.txt").read_text()


def test_dropped_items_differ_between_ranks(tmp_path: Path) -> None:
    """Every rank draws dropout of its own: equal items at the same place of two ranks are not dropped alike."""
    mp.spawn(_dropping, (2, str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(one[:4], one[4:])
    assert 0.3 < float((one == 0).double().mean()) < 0.7


def _dropping(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    seen = []

    def loss(net: Any, batch: Tensor) -> Tensor:
        seen.append(net(batch).detach())
        return net(batch).square().mean()

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(1, 50), nn.Dropout(0.5))
    train(model, [torch.ones(8, 1)], loss, 1)
    torch.save(seen[0], f"{folder}/{rank}.pt")
    os._exit(0)  # all is written; gloo's threads may abort a process that takes its group down beside others
