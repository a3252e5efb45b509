"""One optimiser step, five ways: plain training, and mask training by each path that is compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from networks import Case
from torch import Tensor, nn

from modhook import Sampler
from modhook.fit.engine import MaskTrainer
from modhook.network.recurrent import with_gradients
from modhook.noise.noise import generators
from modhook.plugin.interfaces import NoOptions
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions

Step = Callable[[], Any]
LR, BETA, INIT = 1e-2, 1e-4, 2.0


class SimpleGumbel(Sampler):
    """The textbook path: two uniforms, two logarithms, a sigmoid, and autograd for everything."""

    Options = NoOptions

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return (K, *weight.shape)."""
        rows = []
        for generator in generators:
            u1, u2 = (torch.rand(logits.shape, generator=generator, device=logits.device) for _ in range(2))
            gumbels = torch.log(torch.log(u2.clamp_min(1e-20)) / torch.log(u1.clamp_min(1e-20)))
            soft = torch.sigmoid(logits + gumbels)
            rows.append(((soft > 0.5).float() - soft.detach() + soft) * weight)
        return torch.stack(rows)


def plain(case: Case, model: nn.Module, batch: Any) -> Step:
    """Return a step of plain training: the whole batch at once, Adam on all weights, no masks."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        case.loss(model, batch).backward()
        optimizer.step()

    return step


def sequential(case: Case, model: nn.Module, batch: Any, samples: int) -> Step:
    """Return K sequential passes of B / K items, written out plainly; the sampler is modhook's own."""
    sampler = Gumbel(GumbelOptions())
    logits = {n: logit.requires_grad_() for n, logit in _logits(model).items()}
    weights = {n: p.detach() for n, p in model.named_parameters() if n in logits}
    optimizer = torch.optim.Adam(logits.values(), lr=LR, fused=True)
    noise = generators(0, "bench", samples, next(iter(logits.values())).device)

    def step() -> None:
        optimizer.zero_grad()
        for k in range(samples):
            masked = {n: sampler.apply(weights[n], logit, [noise[k]])[0] for n, logit in logits.items()}
            part = [t.chunk(samples)[k] for t in batch]
            with with_gradients(model):
                loss = case.loss(lambda *x, masked=masked: torch.func.functional_call(model, masked, x), part)
            (loss / samples).backward()
        pull = BETA / batch[0].shape[0]
        for logit in logits.values():
            logit.grad.add_(pull)
        torch.nn.utils.clip_grad_norm_(logits.values(), 1.0)
        optimizer.step()

    return step


def masked(
    case: Case, model: nn.Module, batch: Any, samples: int, executor: str = "auto", sampler: Sampler | None = None,
    memory: int | None = None,
) -> Step:  # fmt: skip
    """Return a step of modhook's mask training."""
    trainer = MaskTrainer(
        model, case.loss, _logits(model), sampler or Gumbel(GumbelOptions()), samples=samples, lr=LR, beta=BETA,
        executor=executor, memory=memory,
    )  # fmt: skip
    # As in a fit: else every step would look at the network's values anew.
    held = trainer.holding()
    held.__enter__()
    number = iter(range(10**9))
    step = lambda: trainer.step(next(number), batch)  # noqa: E731
    step.trainer, step.held = trainer, held  # type: ignore[attr-defined]
    return step


def _logits(model: nn.Module) -> dict[str, Tensor]:
    masked = {n: p for n, p in model.named_parameters() if "bias" not in n}
    return {n: torch.full_like(p, INIT, requires_grad=False) for n, p in masked.items()}
