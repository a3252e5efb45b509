"""Data parallelism of base training: every rank runs the network on its own items of each batch.

As in the reference (its section 8), what is spread is the call of the network, not the loss: the outputs are gathered, and every rank
computes the loss of the whole batch. So any loss is that of one process, also one that is no mean over items; gradients agree to
rounding. Batch normalisation in training mode is the exception: each rank normalises by its own items, as with DataParallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from modhook.noise.seeding import derive
from modhook.steps.modes import in_mode
from modhook.steps.ranks import agree, all_say, rank, same, share
from modhook.steps.snapshot import digest

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference to the whole batch, relative to the largest output; other types get 0.05."""


class Spread:
    """Stands for the network in a loss: called with a batch's inputs, it runs this rank's items and returns all outputs.

    Whether a network treats items alone is tried at the first call of each kind, in evaluation mode, against the whole batch on
    every rank. Where it does not, every rank runs the whole batch, to the same gradients.

    Attributes:
        say: told in one sentence whether the network is spread, and why not.
    """

    def __init__(self, model: nn.Module, say: Callable[[str], None] = lambda text: None) -> None:
        self._model, self.say = model, say
        self._spread: dict[Any, frozenset[int]] = {}
        """Kind of call -> which of its leaves are cut; none: every rank does all."""
        self._told: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's outputs for all items, differentiable; the backward pass expects `average` after it."""
        leaves, spec = tree_flatten((args, kwargs))
        kind = (str(spec), tuple(leaf if isinstance(leaf, bool | str) else type(leaf) for leaf in leaves))
        if kind not in self._spread:
            same(digest([leaf for leaf in leaves if isinstance(leaf, Tensor)]), "the batches of base training")
            self._spread[kind] = self._settle(leaves, spec)
        cut = self._spread[kind]
        count = _items(leaves, cut)
        if not cut or count < dist.get_world_size():
            return self._model(*args, **kwargs)
        found = self._outputs(leaves, spec, cut, count)
        if found is None:
            self._spread[kind] = frozenset()
            self._tell("its outputs on different ranks do not fit together")
            return self._model(*args, **kwargs)
        return found

    # -- inside

    def _settle(self, leaves: Sequence[Any], spec: TreeSpec) -> frozenset[int]:
        """Return which leaves are cut, after comparing outputs of the parts with those of the whole."""
        tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim()]
        count = leaves[tensors[0]].shape[0] if tensors else 0
        cut = frozenset(i for i in tensors if leaves[i].shape[0] == count)
        if count < dist.get_world_size():
            self._tell("a batch has fewer items than there are ranks")
            return frozenset()
        with in_mode(self._model, "eval"), torch.no_grad(), torch.random.fork_rng(_cuda(leaves)):
            whole, parts, error = None, None, None
            try:
                args, kwargs = tree_unflatten(list(leaves), spec)
                whole = self._model(*args, **kwargs)
            except Exception as failure:
                error = failure
            agree(error)
            parts = self._outputs(leaves, spec, cut, count, trial=True)
        if all_say(parts is not None and _close(whole, parts)):
            self._tell("")
            return cut
        self._tell("its outputs for a part of the items are not those for all")
        return frozenset()

    def _outputs(
        self, leaves: Sequence[Any], spec: TreeSpec, cut: frozenset[int], count: int, trial: bool = False
    ) -> Any:
        """Return the gathered outputs of all ranks; None, on every rank, where they cannot be put together.

        In a trial, an error of the network on a part of the items is such a case.
        """
        mine = share(count)
        own = [leaf[mine.start : mine.stop] if i in cut else leaf for i, leaf in enumerate(leaves)]
        args, kwargs = tree_unflatten(own, spec)
        # Each rank has noise of its own, or items of different ranks would be dropped alike.
        noise = derive(int(torch.randint(2**62, (), device="cpu")), rank())
        outputs, error = None, None
        with torch.random.fork_rng(_cuda(leaves)):
            torch.manual_seed(noise)
            try:
                outputs = self._model(*args, **kwargs)
            except Exception as failure:
                error = failure
        if not trial:
            agree(error)
        found, form = tree_flatten(outputs)
        fits = error is None and all(isinstance(t, Tensor) and t.dim() and t.shape[0] == len(mine) for t in found)
        shapes = [[str(t.dtype), *t.shape[1:], t.requires_grad] for t in found] if fits else []
        # The first item's number says nothing: ranks may have one item more than others.
        if not all_say(fits, str([str(form), shapes])):
            return None
        gathered: Callable[[Tensor, int], Tensor] = _Gathered.apply
        return tree_unflatten([gathered(t, count) for t in found], form)

    def _tell(self, why: str) -> None:
        if not self._told:
            ranks = dist.get_world_size()
            self.say(
                f"base training is not spread over the {ranks} ranks: {why}; each computes all of it"
                if why
                else f"base training is spread over {ranks} ranks, which share each batch"
            )
        self._told.add(why)


class _Gathered(torch.autograd.Function):
    """The items of all ranks, in order. Every rank's loss is that of all; backward gives each its own items' gradient.

    It is multiplied by the number of ranks, so that the mean over ranks is right for what every rank computed alike, too.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int) -> Tensor:
        """Return (N, ...) of this rank's (n, ...)."""
        ctx.mine, ranks = share(count), dist.get_world_size()
        most = -(-count // ranks)
        padded = own.new_zeros((most, *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(ranks)]
        dist.all_gather(parts, padded)
        sizes = [len(share(count, of)) for of in range(ranks)]
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of this rank's items."""
        return gradient[ctx.mine.start : ctx.mine.stop] * dist.get_world_size(), None


def _items(leaves: Sequence[Any], cut: frozenset[int]) -> int:
    """Return the number of items in the leaves to cut; 0 where they disagree."""
    sizes = {leaves[i].shape[0] if leaves[i].dim() else -1 for i in cut}
    return sizes.pop() if len(sizes) == 1 else 0


def _close(whole: Any, parts: Any) -> bool:
    """Return whether two outputs agree, but for rounding."""
    one, other = tree_flatten(whole)[0], tree_flatten(parts)[0]
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return False
            continue
        scale = float(a.abs().max()) if a.numel() else 0.0
        if not torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE.get(a.dtype, 0.05) * max(scale, 1e-12), equal_nan=True):
            return False
    return True


def _cuda(leaves: Sequence[Any]) -> list[torch.device]:
    return list({t.device for t in leaves if isinstance(t, Tensor) and t.device.type == "cuda"})
