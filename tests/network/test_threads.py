"""Threads that use one network at the same time compute what each would alone, and leave the network as it was."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks
from modhook.errors import UserError
from modhook.network import threads

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 3


def loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of a classifier."""
    return F.cross_entropy(net(batch[0]), batch[1])


def right(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One number per item."""
    return net(batch[0])[:, 0].double()


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_two_fits_on_one_network(executor: str, net: nn.Module, digest: Callable[[nn.Module], str]) -> None:
    """Two threads that fit, evaluate and copy on one network at once get what they get one after the other, to the bit."""
    before, barrier = digest(net), threading.Barrier(2)

    def work(label: str, wait: bool = True) -> tuple[Any, ...]:
        if wait:
            barrier.wait(timeout=60)
        fit = modhook.fit_masks(net, [(X, Y)], loss, steps=30, lr=0.1, label=label, executor=executor, progress=False)
        scores = [modhook.evaluate(net, fit.masks, [(X, Y)], right) for _ in range(5)]
        made = fit.masks.materialize(net)(X)
        return {n: v.tolist() for n, v in fit.logits.items()}, scores, made.tolist(), fit.masks.fingerprint

    alone = [work(label, wait=False) for label in "ab"]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, "ab"))
    assert together == alone
    assert digest(net) == before


def test_a_block_lets_others_wait_and_then_refuses_them(
    net: nn.Module, digest: Callable[[nn.Module], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread holds a network under masks, another waits for it; if that takes too long it is told why."""
    before, masks = digest(net), Masks({"0.weight": torch.zeros(6, 4, dtype=torch.bool)}, net)
    expected = modhook.evaluate(net, None, [(X, Y)], right)
    entered, leave, tried = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with masks.applied_to(net):
            entered.set()
            tried.wait(timeout=60)
            leave.wait(timeout=60)

    def measure() -> Any:
        tried.set()
        return modhook.evaluate(net, None, [(X, Y)], right)

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold)
        assert entered.wait(timeout=60)
        monkeypatch.setattr(threads, "PATIENCE", 0.1)
        for act in (
            measure,
            lambda: masks.applied_to(net).__enter__(),
            lambda: modhook.fit_masks(net, [(X, Y)], loss, steps=1, progress=False),
            lambda: modhook.stack(net, ((X,), {})),
            lambda: modhook.inspect(net, X),
            lambda: masks.materialize(net),
        ):
            with pytest.raises(
                UserError, match=r"another thread holds this Sequential under masks .* a copy of its own"
            ):
                act()
        monkeypatch.setattr(threads, "PATIENCE", 60.0)
        waiting = pool.submit(measure)
        leave.set()
        holding.result()
        assert waiting.result() == expected
    assert digest(net) == before


def test_one_thread_may_nest_and_others_have_their_own_networks(net: nn.Module) -> None:
    """Within a block its own thread may fit and measure; another thread is free to use a copy."""
    masks = Masks({"0.weight": torch.eye(6, 4, dtype=torch.bool)}, net)
    twin = copy.deepcopy(net)
    with masks.applied_to(net):
        inside = modhook.evaluate(net, None, [(X, Y)], right)
        with masks.applied_to(net), ThreadPoolExecutor(1) as pool:
            other = pool.submit(modhook.evaluate, twin, masks, [(X, Y)], right).result()
        fit = modhook.fit_masks(net, [(X, Y)], loss, steps=1, progress=False)
    assert inside == other == modhook.evaluate(net, masks, [(X, Y)], right)
    assert fit.steps == 1


def test_two_networks_at_once_leave_the_switches() -> None:
    """Threads with networks of their own overlap in any way; torch's switches are as before, and outputs are right."""
    torch.manual_seed(0)
    models = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval() for _ in range(2)]
    x = torch.randn(2, 3, 5, 8)
    fast = torch.backends.mha.get_fastpath_enabled()
    barrier = threading.Barrier(2)

    def work(model: nn.Module) -> bool:
        stacked = modhook.stack(model, ((x[0],), {}), samples=2)
        params = {n: torch.stack([p.detach()] * 2) for n, p in model.named_parameters()}
        expected = torch.stack([model(part).detach() for part in x])
        barrier.wait(timeout=60)
        return all(torch.allclose(stacked(params, x), expected, atol=1e-5) for _ in range(20))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work, models))
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_networks_are_not_kept_alive() -> None:
    """What is known of a network's users goes with it, also for a network with an equality of its own."""

    class Equal(nn.Linear):
        def __eq__(self, other: object) -> bool:
            return True

    gc.collect()
    count = len(threads._turns)
    model = Equal(2, 2)
    with threads.using(model):
        assert len(threads._turns) == count + 1
    del model
    gc.collect()
    assert len(threads._turns) == count
