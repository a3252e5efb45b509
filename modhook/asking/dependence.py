"""Whether losses and scores of a question depend on the network that they are given, a copy, and not on the user's own.

A question computes with copies: the user's own network, by a variable, has no mask. It may be what a copy is compared with; used in the
copy's stead it would give every mask the score of the whole network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from modhook.errors import UserError
from modhook.network.called import computes_with, hearing


def check_loss(whose: str, model: nn.Module, net: nn.Module, loss: Tensor, heard: list[str]) -> None:
    """Refuse a loss without a gradient for the copy's weights, or with one for the user's own.

    Args:
        whose: names it: "the loss of 'low'". model: the user's network. net: the copy that the loss was given.
        heard: what it called of the user's own network.

    Raises:
        UserError: it depends on no weight of the copy, or on one of the network itself.
    """
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    copied = [p for p in net.parameters() if p.requires_grad]
    try:
        found = torch.autograd.grad(loss, [*copied, *own.values()], allow_unused=True, retain_graph=True)
    except Exception:  # told where it is learned from
        return
    if all(gradient is None for gradient in found[: len(copied)]):
        raise UserError(_instead(whose, heard) if heard else f"{whose} does not depend on the network's weights; does it call `net`?")
    used = next((n for n, gradient in zip(own, found[len(copied) :], strict=True) if gradient is not None), None)
    if used is not None:
        raise UserError(computes_with(used, whose))


def check_score(
    whose: str, net: nn.Module, call: Callable[[], Mapping[str, Tensor]], found: Mapping[str, Tensor], heard: list[str]
) -> None:
    """Refuse a score that is the same whatever the weights of the copy are.

    One that is 0 is refused only where the user's own network is called, and the copy is not: it may be of a function that the
    network does not do.

    Args:
        whose: names it. net: the copy. call: scores a batch with the copy. found: what it gave. heard: see `check_loss`.

    Raises:
        UserError: zero, negative and random weights change nothing.
    """
    zero = not any(bool(values.any()) for values in found.values())
    if zero and not heard:
        return
    for change in (torch.zeros_like, torch.neg, torch.randn_like):
        try:
            with _changed(net, change), hearing(net) as used:
                now = call()
        except Exception:
            return  # it depends on them, or cannot be tried
        if zero and used:
            return
        if any(not torch.equal(now[name], values) for name, values in found.items() if name in now):
            return
    if heard:
        raise UserError(_instead(whose, heard))
    raise UserError(f"{whose} is the same whatever the weights of its first argument are: no mask could change it; call that.")


@contextlib.contextmanager
def _changed(net: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put other weights into a network, and its own back."""
    parameters = [p for p in net.parameters() if p.is_floating_point()]
    with torch.no_grad():
        before = [p.clone() for p in parameters]
        try:
            for parameter in parameters:
                parameter.copy_(change(parameter))
            yield
        finally:
            for parameter, values in zip(parameters, before, strict=True):
                parameter.copy_(values)


def _instead(whose: str, heard: list[str]) -> str:
    called = f"the network's own {heard[0]!r}" if heard[0] else "the network itself"
    return (
        f"{whose} calls {called} by a variable, which has no mask, and depends on no weight of its first argument, which stands for the "
        "network under a mask: no mask could change it; call the first argument."
    )
