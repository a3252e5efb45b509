"""Finds neurons and channels by following tensors through a network's own code, as torch.fx records it.

What a linear or convolutional layer gives are candidates. They are units if everything that becomes of them is known: layers under
which each stays by itself (activations, dropout, pooling, batch norm), and layers that take them, by columns of a weight. What cannot
be followed makes them no units, and a sentence says where they were lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modhook.network.scope import restored
from modhook.unit.graphs import recorded
from modhook.unit.group import Group, Part, rows
from modhook.unit.layers import (
    ALIKE,
    ASKED,
    ATTRIBUTES,
    CHANNELS,
    CHANNELWISE,
    CONVS,
    ELEMENTWISE,
    NORMS,
    TRANSPOSED,
    features,
    linear_axis,
)
from modhook.unit.nodes import averaged, dimensions, given, keeps_items, main_and_others, of_places, operands
from modhook.unit.recurrent import Recurrent
from modhook.unit.source import Source, Tag

ADDED = "are added"
_JOINED = {
    "add": False,
    "sub": False,
    "mul": True,
    "div": True,
    "truediv": True,
    "maximum": False,
    "minimum": False,
    "multiply": True,
}
"""Functions of two tensors; True: of one whose units are not known each unit stays by itself, too."""


def followed(
    model: nn.Module, names: Mapping[str, Sequence[str]], layers: Mapping[str, Recurrent]
) -> tuple[list[Group], dict[str, str]]:
    """Return the neurons and channels that were found by following tensors, and {module: why what it gives are no units}.

    Args:
        model: the network.
        names: {first name of a parameter: all of its names}.
        layers: the recurrent layers by path, whose outputs are followed, too.
    """
    with restored(model):
        flows = [_Flow(model, module, path, graph, layers) for path, module, graph in recorded(model)]
    groups, lost = [], {}
    for flow in flows:
        for source in flow.sources:
            if source.joined is not None:
                continue
            if (why := _unsound(source, names, flow)) or source.lost:
                lost[source.module] = source.lost or why
            else:
                groups.append(source.group())
    return groups, lost


def _unsound(source: Source, names: Mapping[str, Sequence[str]], flow: _Flow) -> str:
    """Say why candidates whose outputs were followed are no units all the same."""
    for part in source.parts:
        aliases = names.get(part.parameter, (part.parameter,))
        if part.parameter not in names or len(aliases) > 1:
            every = [a for first, a in names.items() if part.parameter in a][:1] or [aliases]
            return f"own weights of {every[0][0]!r}, which is tied to {every[0][-1]!r}"
        if part.parameter in flow.raw or (part.parameter in flow.linear and not part.gate):
            return f"own weights of {part.parameter!r}, which is used outside its layer, too"
    return "" if any(p.gate for p in source.parts) else "reach no layer that takes them"


class _Flow:
    """One recorded module, gone through once."""

    def __init__(
        self, model: nn.Module, module: nn.Module, path: str, graph: fx.Graph, layers: Mapping[str, Recurrent]
    ) -> None:
        self.whole, self.module, self.path, self.layers = module is model, module, path, layers
        self.sources: list[Source] = []
        self.made: dict[str, Source] = {}
        self.raw: set[str] = set()
        self.linear: set[str] = set()  # weights that F.linear is called with
        self.met: dict[str, list[Tag | None]] = {}  # what each layer with weights takes, call by call
        self.tags: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            self.tags[node] = self._node(node)
        self._shared()

    # -- nodes

    def _node(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            return None
        if node.op == "output":
            where = (
                "are the network's outputs"
                if self.whole
                else f"leave {self.path!r}, beyond which they cannot be followed"
            )
            self._lose(node, where)
            self._used_raw(node)
            return None
        if node.op == "call_module":
            self._used_raw(node)
            return self._module(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return self._function(node, name.strip("_"))

    def _module(self, node: fx.Node) -> Any:
        target = str(node.target)
        module = self.module.get_submodule(target)
        path = f"{self.path}.{target}" if self.path else target
        main, others = main_and_others(node)
        tag = self._tag(main)
        if not isinstance(module, nn.RNNBase):
            self._lose(others, f"reach {path!r} ({type(module).__name__})")
        one = isinstance(module, nn.PReLU) and module.num_parameters == 1
        if not one and (isinstance(module, (CONVS, nn.RNNBase, nn.PReLU, *NORMS)) or linear_axis(module) is not None):
            self.met.setdefault(path, []).append(tag)
        if linear_axis(module) is not None:
            return self._linear(path, module, tag)
        if isinstance(module, CONVS):
            return self._convolution(path, module, tag)
        if isinstance(module, nn.RNNBase):
            return self._recurrent(others, path, module, tag)
        if tag is None:
            self._lose(node, f"reach {path!r} ({type(module).__name__})")
            return None
        if isinstance(module, ELEMENTWISE):
            return tag
        if isinstance(module, nn.PReLU):
            return self._beside(path, module, tag, ("weight",)) if module.num_parameters > 1 else tag
        fits = tag.axis == 1 and dimensions(type(module).__name__) in (None, tag.places)
        if isinstance(module, NORMS) and (fits or (isinstance(module, _BatchNorm) and tag.axis == -1 and not tag.flat)):
            return self._beside(path, module, tag, ("weight", "bias"))
        if isinstance(module, CHANNELWISE) and fits:
            return tag
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return self._flat(tag)
        tag.lose(f"reach {path!r} ({type(module).__name__}), which mixes them, or may")
        return None

    def _function(self, node: fx.Node, name: str) -> Any:
        args = node.args
        first = self._tag(args[0]) if args else None
        if name == "linear" and len(args) >= 2 and all(isinstance(a, fx.Node) for a in args[1:2]):
            return self._raw_linear(node, first)
        self._used_raw(node)
        of: Any = self.tags.get(args[0]) if args and isinstance(args[0], fx.Node) else None
        if isinstance(of, Recurrent) and name == "getitem":
            return of.picked(args[1])
        if not any(isinstance(self.tags.get(a), Tag | Recurrent) for a in node.all_input_nodes):
            return None
        if name in ASKED or (name == "getattr" and args[1] in ATTRIBUTES):
            return None
        states = [a for a in node.all_input_nodes if isinstance(self.tags.get(a), Recurrent)]
        others = [self._tag(a) for a in node.all_input_nodes if a is not (args[0] if args else None)]
        plain = name[1:] if name[:1] in ("i", "r") and name[1:] in _JOINED else name
        if states:
            self._lose(node, f"reach {name!r}, beyond which they cannot be followed")
            return None
        if plain in _JOINED:
            return self._joined(node, plain)
        if name == "cat" or name == "concat":
            return self._concatenated(node)
        if first is None or any(o is not None for o in others):
            self._lose(node, f"reach {name!r}, which mixes them, or may")
            return None
        if name in ALIKE or (
            name == "pow" and isinstance(power := given(node, 1, "exponent", None), int | float) and power > 0
        ):
            return first
        if name in CHANNELS and first.axis == 1 and dimensions(name) in (None, first.places):
            return first
        if name == "flatten" and given(node, 1, "start_dim", 0) == 1 and given(node, 2, "end_dim", -1) == -1:
            return self._flat(first)
        if name in ("view", "reshape") and keeps_items(node):
            return self._flat(first)
        if name == "mean" and (found := averaged(node, first)) is not None:
            return found
        if name == "getitem" and of_places(args[1]) and first.axis == -1 and not first.flat:
            thin = isinstance(args[1], tuple) and len(args[1]) == 2 and isinstance(args[1][1], slice)
            return attrs.evolve(first, thin=first.thin or thin)
        first.lose(f"reach {name!r}, beyond which they cannot be followed")
        return None

    # -- layers

    def _linear(self, path: str, module: nn.Module, tag: Tag | None) -> Tag | None:
        axis = linear_axis(module)
        assert axis is not None
        given, made = features(module)
        if tag is not None:
            self._taken(f"{path}.weight" if path else "weight", tag, given, 1 - axis, 2, path)
        return self._made("neuron", path, module, made, axis, -1)

    def _raw_linear(self, node: fx.Node, tag: Tag | None) -> Any:
        """A call of F.linear on parameters: what it makes is not followed, what it takes is."""
        weight: Any = node.args[1]
        self._used_raw(node, skip=weight if weight.op == "get_attr" else None)
        self._lose(node.all_input_nodes[1:], "reach a call of linear as its weight or its bias")
        name = f"{self.path}.{weight.target}" if self.path else str(weight.target)
        if weight.op == "get_attr":
            self.linear.add(name)
            self.met.setdefault(name.rpartition(".")[0] if name.endswith(".weight") else name, []).append(tag)
        if tag is None:
            return None
        found = self._parameter(str(weight.target)) if weight.op == "get_attr" else None
        if found is None or found.dim() != 2:
            tag.lose("reach a call of linear whose weight is computed")
            return None
        self._taken(name, tag, found.shape[1], 1, 2, name)
        return None

    def _convolution(self, path: str, module: Any, tag: Tag | None) -> Tag | None:
        turned = isinstance(module, TRANSPOSED)
        dims = module.weight.dim()
        groups, given, made = module.groups, module.in_channels, module.out_channels
        if tag is not None and groups == given == made == tag.size and tag.axis == 1 and not tag.flat and not turned:
            return self._beside(path, module, tag, ("weight", "bias"))  # each channel by itself
        if tag is not None:
            if groups != 1 or tag.axis != 1 or tag.flat:
                tag.lose(f"reach {path!r} ({type(module).__name__}), which takes them in groups")
            else:
                self._taken(f"{path}.weight" if path else "weight", tag, given, 0 if turned else 1, dims, path)
        if turned and groups != 1:
            return None
        return self._made("channel", path, module, made, 1 if turned else 0, 1)

    def _recurrent(self, others: Sequence[fx.Node], path: str, module: nn.RNNBase, tag: Tag | None) -> Any:
        own = self.layers[path]
        own.called = True
        own.stated |= bool(others)
        self._lose(others, f"are a state of {path!r} ({type(module).__name__})")
        if tag is not None:
            for name in ("weight_ih_l0", *(("weight_ih_l0_reverse",) if module.bidirectional else ())):
                self._taken(f"{path}.{name}" if path else name, tag, module.input_size, 1, 2, path)
        return own

    # -- what becomes of tags

    def _made(self, kind: str, path: str, module: Any, size: int, axis: int, where: int) -> Tag | None:
        """Return the tag of what a layer gives; the same layer called again gives the same units."""
        if path in self.made:
            return Tag((self.made[path].own,), where, places=max(module.weight.dim() - 2, 0))
        weight = module._parameters.get("weight")
        if weight is None or not weight.is_floating_point():
            return None
        source = Source(size, kind, path or type(module).__name__)
        name = f"{path}." if path else ""
        source.parts.append(Part(f"{name}weight", rows(size, axis, weight.dim())))
        if module._parameters.get("bias") is not None:
            source.parts.append(Part(f"{name}bias", rows(size, 0, 1)))
        source.home.append(f"{name}weight")
        self.made[path] = source
        self.sources.append(source)
        return Tag((source,), where, places=weight.dim() - 2)

    def _taken(self, name: str, tag: Tag, given: int, axis: int, dims: int, path: str) -> None:
        """Note that a layer takes these units by the columns of its weight."""
        where = 1 if dims > 2 else -1
        if given % tag.size or (given != tag.size and not tag.flat) or (tag.axis != where and not tag.flat):
            tag.lose(f"reach {path!r}, which takes {given} of what are {tag.size}")
            return
        if self._parameter(name.removeprefix(f"{self.path}.") if self.path else name) is None:
            tag.lose(f"reach {path!r}, whose weight is computed")
            return
        places, start = given // tag.size, 0
        for source in tag.sources:
            if tag.flat == "minor":
                owner = torch.full((places, tag.size), -1, dtype=torch.int64, device="cpu")
                owner[:, start : start + source.size] = torch.arange(source.size, device="cpu")
                owner = owner.view([given if i == axis else 1 for i in range(dims)])
            else:
                owner = rows(source.size, axis, dims, start=start * places, each=places, total=given)
            source.own.parts.append(Part(name, owner, gate=True))
            start += source.size

    def _beside(self, path: str, module: Any, tag: Tag, names: Sequence[str]) -> Tag | None:
        """Let parameters with one number per unit belong to it."""
        for name in names:
            value = module._parameters.get(name)
            if value is None:
                if name == "weight" and getattr(module, "num_features", tag.size) != tag.size:
                    tag.lose(f"reach {path!r}, which takes {module.num_features} of what are {tag.size}")
                    return None
                continue
            if value.shape[0] != tag.size or tag.flat:
                tag.lose(f"reach {path!r}, which takes {value.shape[0]} of what are {tag.size}")
                return None
            start = 0
            for source in tag.sources:
                owner = rows(source.size, 0, value.dim(), start=start, total=tag.size)
                source.own.parts.append(Part(f"{path}.{name}" if path else name, owner))
                start += source.size
        return tag

    def _flat(self, tag: Tag) -> Tag | None:
        if tag.flat or (len(tag.sources) > 1 and tag.axis == -1):
            tag.lose("are flattened twice")
            return None
        return Tag(tag.sources, -1, "major" if tag.axis == 1 else "minor")

    def _joined(self, node: fx.Node, name: str) -> Tag | None:
        args = operands(node)
        tags = [self._tag(a) for a in args]
        found = [t for t in tags if t is not None]
        unknown = any(
            isinstance(a, fx.Node) and a.op != "get_attr" and t is None for a, t in zip(args, tags, strict=True)
        )
        if name in ("div", "truediv") and any(t is not None for t in tags[1:]):
            for tag in found:
                tag.lose("are what others are divided by, or divided by others")
            return None
        if not found or (any(t.thin for t in found) and sum(isinstance(a, fx.Node) for a in args) > 1):
            self._lose(node, f"reach {name!r}, where they may be spread over each other")
            return None
        if unknown and not (_JOINED[name] and len(found) == 1):
            for tag in found:
                tag.lose(f"{ADDED} to what are no units")
            return None
        one = found[0]
        for other in found[1:]:
            alike = (one.axis, one.flat) == (other.axis, other.flat) and [s.own.size for s in one.sources] == [
                s.own.size for s in other.sources
            ]
            if not alike:
                one.lose(f"meet others in {name!r} that are laid out otherwise")
                other.lose(f"meet others in {name!r} that are laid out otherwise")
                return None
            for a, b in zip(one.sources, other.sources, strict=True):
                a.join(b)
        return one

    def _concatenated(self, node: fx.Node) -> Tag | None:
        pieces: Any = given(node, 0, "tensors", None)
        tags = [self._tag(p) for p in pieces] if isinstance(pieces, list | tuple) else [None]
        axis = given(node, 1, "dim", 0)
        known = [t for t in tags if t is not None]
        if not known:
            self._lose(node, "are put beside what are no units")
            return None
        same = len(known) == len(tags) and len({(t.axis, t.flat, t.places) for t in known}) == 1 and not known[0].flat
        if not same or axis not in ((1,) if known[0].axis == 1 else (1, -1, 2)):
            for tag in known:
                tag.lose("are put beside what are no units")
            return None
        sources = tuple(s for t in known for s in t.sources)
        return attrs.evolve(known[0], sources=sources, thin=any(t.thin for t in known))

    def _shared(self) -> None:
        """Lose what reaches a layer that takes something else in another call: its columns belong to both."""
        for path, tags in self.met.items():
            layouts = {t and (tuple(id(s.own) for s in t.sources), t.axis, t.flat) for t in tags}
            for tag in tags if len(layouts) > 1 else ():
                if tag is not None:
                    tag.lose(f"reach {path!r}, which takes other tensors, too")

    # -- inside

    def _tag(self, value: Any) -> Tag | None:
        found = self.tags.get(value) if isinstance(value, fx.Node) else None
        return found if isinstance(found, Tag) else None

    def _lose(self, node: fx.Node | Sequence[fx.Node], why: str) -> None:
        for other in node.all_input_nodes if isinstance(node, fx.Node) else node:
            if isinstance(found := self.tags.get(other), Tag | Recurrent):
                found.lose(why)

    def _used_raw(self, node: fx.Node, skip: fx.Node | None = None) -> None:
        for other in node.all_input_nodes:
            if other.op == "get_attr" and other is not skip:
                self.raw.add(f"{self.path}.{other.target}" if self.path else str(other.target))

    def _parameter(self, name: str) -> Tensor | None:
        owner, _, short = name.rpartition(".")
        found = self.module.get_submodule(owner)._parameters.get(short)
        return found if found is not None and found.is_floating_point() else None
