"""Finds what an earlier forward pass computed from a weight and left in the network, where the next pass reads it instead of the weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modhook.errors import StackError, listing
from modhook.network.held import held


def refuse_if_left(
    model: nn.Module, run: Callable[[Callable[[nn.Module], None]], Sequence[Tensor]], gradients: Mapping[str, Tensor]
) -> None:
    """Raise `StackError` if outputs depend on a tensor that the network keeps, and that stands for one of its weights.

    Such is one with a history that leads to a weight, or, where no gradient reaches a weight, one of as many numbers.

    Args:
        run: runs a new copy of the network, after it has called its argument on it, and returns what came out.
        gradients: of the weights that get masks, by name, zeros where nothing flows.
    """
    kept = _kept(model)
    if not kept:
        return
    parameters = dict(model.named_parameters())
    names = {id(parameters[n]): n for n in gradients}
    sources = {path: [names[id(p)] for p in leaves([tensor]) if id(p) in names] for path, tensor in kept.items()}
    computed = {path: found for path, found in sources.items() if found}
    unreached = [n for n, g in gradients.items() if g.numel() > 1 and not bool(g.any())]
    alike = {
        path: found
        for path, tensor in kept.items()
        if path not in computed and (found := [n for n in unreached if parameters[n].numel() == tensor.numel()])
    }
    if not (suspects := computed | alike):
        return
    marked: dict[int, str] = {}

    def mark(copy: nn.Module) -> None:
        own = _kept(copy)
        for path in suspects:
            if path in own:
                marked[id(own[path].requires_grad_())] = path

    try:
        outputs = run(mark)
    except Exception:  # such as a write in place into what is marked: then it is no weight
        return
    path = next((marked[id(leaf)] for leaf in leaves(outputs) if id(leaf) in marked), None)
    if path in computed:
        raise StackError(
            f"the network uses {path!r}, which an earlier forward pass computed from {listing(computed[path])} and left there: masks would "
            "not reach it. Clear it before, or detach it, if it is a state that is to be kept"
        )
    if path in alike:
        one = listing(alike[path])
        raise StackError(
            f"the network uses {path!r}, a tensor of as many numbers as {one}, and does not use {one}: it seems to be what an earlier "
            f"forward pass made of the weight and left there, which no mask would reach. Clear it before; or, if they have nothing to "
            f"do with each other, leave {one} out with exclude="
        )


def leaves(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the tensors that gradients of the outputs lead to, each once."""
    seen: set[Any] = set()
    todo: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            yield variable
        todo += [parent for parent, _ in node.next_functions if parent is not None]


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of real numbers that a network keeps and that are neither parameters nor buffers, by path."""
    registered = {id(t) for t in (*model.parameters(), *model.buffers())}
    return {p: t for p, t in held(model).tensors.items() if id(t) not in registered and t.is_floating_point()}
