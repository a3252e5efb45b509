"""The ranks of an initialised torch.distributed process group: who has which samples, and what all must agree on.

Without a group everything here is as for one rank alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from modhook.errors import RunError, UserError
from modhook.noise.seeding import derive

_TEXT = 1024
"""Most bytes of an error's message that travel."""


def spread() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process' rank; the first, 0, writes and speaks."""
    return dist.get_rank() if spread() else 0


def share(samples: int, of: int | None = None) -> range:
    """Return the samples or items of this rank, or of another: consecutive, as even as possible; the last have none if there are few."""
    if not spread():
        return range(samples)
    number = rank() if of is None else of
    size, extra = divmod(samples, dist.get_world_size())
    start = number * size + min(number, extra)
    return range(start, start + size + (number < extra))


def agree(error: Exception | None = None) -> None:
    """Raise `error` on the ranks that have one and what it says on the others, so that none waits for a rank that stopped.

    An error that was agreed on is raised again at once: all ranks have it. Raises `UserError` or `RunError` for another rank's.
    """
    if spread() and not agreed(error):
        failed = torch.tensor([0 if error is None else dist.get_world_size() - rank()], device=_device())
        dist.all_reduce(failed, dist.ReduceOp.MAX)  # of several, the first rank's counts
        if first := int(failed.item()):
            source = dist.get_world_size() - first
            told = _told(error, source)
            error = error or told
            error._modhook_agreed = True  # type: ignore[attr-defined]
    if error is not None:
        raise error


@contextlib.contextmanager
def together() -> Iterator[None]:
    """An error within it on one rank is an error on all; all wait for each other at its end."""
    try:
        yield
    except Exception as error:
        agree(error)
    else:
        agree()


def agreed(error: BaseException | None) -> bool:
    """Return whether all ranks know of an error."""
    return getattr(error, "_modhook_agreed", False)


def known_to_all(error: BaseException) -> bool:
    """Return whether the ranks may go on after an error, or after what it caused: all of them know of it, or there is one rank alone."""
    return not spread() or agreed(error.__cause__ or error)


def add_up(learned: Sequence[Tensor], loss: float) -> float:
    """Sum the gradients of `learned` over the ranks, in place, and return the sum of `loss`."""
    if not spread():
        return loss
    for tensor in learned:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        dist.all_reduce(tensor.grad)
    total = torch.tensor([loss], dtype=torch.float64, device=_device())
    dist.all_reduce(total)
    return float(total.item())


def average(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the ranks, in place. One that no rank has stays away."""
    if not spread():
        return
    every = list(parameters)
    has = torch.tensor([p.grad is not None for p in every], dtype=torch.uint8, device=_device())
    dist.all_reduce(has, dist.ReduceOp.MAX)
    for parameter in (p for p, there in zip(every, has.tolist(), strict=True) if there):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = gradient = (gradient.to_dense() if gradient.is_sparse else gradient).contiguous()
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()


def all_say(yes: bool, text: str = "") -> bool:
    """Return whether every rank says yes, and all the same text."""
    number = derive(text) if yes else -1
    low, high = (torch.tensor([number], device=_device()) for _ in range(2))
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    return int(low.item()) == int(high.item()) != -1


def even(tensors: Iterable[Tensor]) -> None:
    """Give every rank the first rank's values, in place."""
    if spread():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def same(text: str | None, what: str) -> None:
    """Raise `RunError` on all ranks unless their texts are equal; None is equal to any."""
    if not spread():
        return
    number = None if text is None else derive(text)
    low = torch.tensor([2**63 - 1 if number is None else number], device=_device())
    high = torch.tensor([-1 if number is None else number], device=_device())
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if int(low.item()) != int(high.item()):
        error = RunError(f"the ranks differ in {what}; are they the same kind of machine, with the same versions?")
        error._modhook_agreed = True  # type: ignore[attr-defined]
        raise error


def from_first(values: Sequence[int]) -> list[int]:
    """Return the first rank's numbers; every rank gives as many."""
    if not spread() or not values:
        return list(values)
    told = torch.tensor(list(values), dtype=torch.int64, device=_device())
    dist.broadcast(told, 0)
    return [int(v) for v in told.tolist()]


def _told(error: Exception | None, source: int) -> Exception:
    """Return another rank's error: its class of exit code, and its message."""
    words = torch.zeros(_TEXT, dtype=torch.uint8, device=_device())
    if rank() == source:
        said = f"{'U' if isinstance(error, UserError) else 'R'}{type(error).__name__}: {error}".encode()[:_TEXT]
        words[: len(said)] = torch.tensor(list(said), dtype=torch.uint8, device=words.device)
    dist.broadcast(words, source)
    text = bytes(words.tolist()).rstrip(b"\0").decode(errors="replace")
    return (UserError if text[:1] == "U" else RunError)(f"rank {source} stopped: {text[1:]}")


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
