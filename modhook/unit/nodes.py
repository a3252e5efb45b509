"""What single nodes of a graph of torch.fx say: their arguments, by place or by name, and what views and indices leave as it is."""

from __future__ import annotations

import re
from typing import Any

import attrs
from torch import fx

from modhook.unit.source import Tag


def operands(node: fx.Node) -> list[Any]:
    """Return what a function of two tensors is given, by place or by name."""
    return [*node.args, *(node.kwargs[n] for n in ("input", "other") if n in node.kwargs)]


def main_and_others(node: fx.Node) -> tuple[Any, list[fx.Node]]:
    """Return a module's first argument, or the one that is called input, and all other nodes that it is given."""
    named = dict(node.kwargs)
    main = node.args[0] if node.args else named.pop("input", None)
    others: list[fx.Node] = []
    fx.node.map_arg((node.args[1:], named), others.append)
    return main, others


def dimensions(name: str) -> int | None:
    """Return on how many dimensions of places a layer or function works that is called so, "max_pool2d"; None for any number."""
    found = re.search(r"([123])d(_with_indices)?$", name)
    return int(found[1]) if found else None


def given(node: fx.Node, place: int, name: str, default: Any) -> Any:
    """Return an argument by its place or its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def of_places(key: Any) -> bool:
    """Return whether an index chooses places of a sequence, (items, places, features), and leaves features as they are."""
    whole = slice(None, None, None)
    if not isinstance(key, tuple):
        return False
    if len(key) == 2:
        return key[0] == whole and isinstance(key[1], int | slice) and key[1] != whole
    return len(key) == 3 and key[0] in (whole, Ellipsis) and isinstance(key[1], int | slice) and key[2] == whole


def keeps_items(node: fx.Node) -> bool:
    """Return whether a view is (number of items, -1)."""
    shape = node.args[1:] if len(node.args) > 2 else node.args[1] if len(node.args) > 1 else ()
    if not isinstance(shape, list | tuple) or len(shape) != 2 or shape[1] != -1 or not isinstance(shape[0], fx.Node):
        return False
    asked: Any = shape[0]
    if asked.op == "call_method" and asked.target == "size":
        return bool(asked.args[1:] == (0,))
    if getattr(asked.target, "__name__", "") != "getitem" or asked.args[1] != 0:
        return False
    of = asked.args[0]
    return bool(of.target == "size" or (getattr(of.target, "__name__", "") == "getattr" and of.args[1] == "shape"))


def averaged(node: fx.Node, tag: Tag) -> Tag | None:
    """Return what a mean over places leaves of units; None for any other mean."""
    dims = given(node, 1, "dim", None)
    keep = given(node, 2, "keepdim", False)
    dims = (dims,) if isinstance(dims, int) else tuple(dims) if isinstance(dims, list | tuple) else ()
    if tag.flat or not dims or not all(isinstance(d, int) for d in dims):
        return None
    if tag.axis == 1:
        gone = {d if d >= 0 else d + 2 + tag.places for d in dims}  # of (items, channels, *places)
        if not gone <= set(range(2, 2 + tag.places)):
            return None
        left = tag.places - len(gone)
        return tag if keep else attrs.evolve(tag, places=left) if left else Tag(tag.sources, -1)
    # Of two dimensions, 1 is that of the features: (items, 1) is then no tensor that a layer takes, but may be spread.
    return attrs.evolve(tag, thin=tag.thin or bool(keep and 1 in dims)) if set(dims) <= {1, -2} else None
