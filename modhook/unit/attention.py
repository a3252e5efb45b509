"""Heads of attention modules that are not torch's own, and neurons between two linear layers of modules that cannot be followed.

Which linear layers make queries, keys and values, and which takes what the heads give, is read from numbers: those of heads, which the
module or a configuration names, and those of features. Nothing is taken for granted: each reading is tried (`modhook.unit.probe`), and
only what is proven is a unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import nn

from modhook.unit.group import Group, Part, numbered, rows
from modhook.unit.layers import features, linear_axis
from modhook.unit.probe import Call, Probe

HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead", "heads", "num_q_heads", "h", "attention_heads",
          "encoder_attention_heads", "decoder_attention_heads")  # fmt: skip
UNCLEAR = "may be heads"
_NORMALISED = "queries and keys are normalised over all heads, so that those of a head that is gone stay"
_SHARED = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "n_kv_head",
    "kv_heads",
    "num_query_groups",
    "n_query_groups",
    "num_kv",
)


@attrs.frozen(eq=False)
class _Layer:
    """A linear layer: its path, what it takes and gives, and which dimension of its weight the outputs are."""

    path: str
    module: nn.Module
    given: int
    made: int
    axis: int

    def makes(self, count: int, *, each: int, pool: int = 1, times: int = 1, start: int = 0) -> Iterator[Part]:
        """Yield the parts of units that this layer makes: rows and biases."""
        for name in ("weight", "bias"):
            value = self.module._parameters.get(name)
            if value is not None:
                axis = self.axis if name == "weight" else 0
                owner = rows(count // pool, axis, value.dim(), each=each, times=times, start=start, total=self.made)
                yield Part(f"{self.path}.{name}", owner, pool)

    def takes(self, count: int, each: int) -> Part:
        """Return the part of units that this layer takes: columns."""
        return Part(f"{self.path}.weight", rows(count, 1 - self.axis, 2, each=each), gate=True)


@attrs.define(eq=False)
class Readings:
    """What was read and tried: groups, why others are none, and what was proven of modules of the same make."""

    model: nn.Module
    names: Mapping[str, Sequence[str]]
    seen: Mapping[str, Sequence[Call]]
    groups: list[Group] = attrs.field(factory=list)
    lost: dict[str, str] = attrs.field(factory=dict)
    _known: dict[Any, bool] = attrs.field(factory=dict)
    _probes: dict[Any, Probe] = attrs.field(factory=dict)

    def heads(self) -> None:
        """Look for heads in every module that names their number; the innermost that holds all of their layers."""
        done: set[str] = set()
        for path, module in reversed(list(self.model.named_modules())):
            if type(module).__module__.startswith("torch.nn") or any(within(d, path) for d in done):
                continue
            count = number(module, HEADS)
            layers = _linear(module)
            if count is None or not 2 <= len(layers) <= 8:
                continue
            if all(one.given % count for one in layers):
                if any(isinstance(getattr(module, name, None), int) for name in HEADS):
                    kind = type(module).__name__
                    self.lost[path or kind] = (
                        f"{UNCLEAR}: {kind} is said to have {count}, which does not divide what a layer takes"
                    )
                continue
            tried = False
            for parts, home in _head_readings(module, layers, count):
                tried = True
                if self.proven(path, module, parts, count, layers[0].given, mixes=True):
                    self.add("head", path, path, module, count, parts, [home])
                    done.add(path)
                    break
            for parts, home, turned in () if path in done else _value_readings(module, layers, count):
                if self.proven(path, module, parts, count, layers[0].given, mixes=True, turned=turned):
                    self.add("head", path, path, module, count, parts, [home], _NORMALISED)
                    done.add(path)
                    break
            if path not in done and tried and self._probes[_make(module)].sees() and not any(within(path, d) for d in done):
                self.lost[path or type(module).__name__] = (
                    f"{UNCLEAR}: {type(module).__name__} is said to have {count}, but no reading of its layers "
                    "could be proven; give them as a mapping"
                )
        for path in done:
            for other in [p for p in self.lost if within(path, p) or within(p, path)]:
                del self.lost[other]

    def neurons(self, found: Sequence[Group], none: set[str]) -> None:
        """Look for neurons between linear layers that no other way has found; of the layers `none` it is known that there are none."""
        made = {p.parameter for g in found if g.kind in ("neuron", "channel") for p in g.parts if not p.gate}
        taken = {p.parameter for g in found if g.kind in ("neuron", "channel", "head") for p in g.parts if p.gate}
        tried: set[tuple[str, ...]] = set()
        for path, module in reversed(list(self.model.named_modules())):
            layers = _linear(module)
            if not 2 <= len(layers) <= 12 or type(module).__module__.startswith("torch.nn"):
                continue
            before = f"{path}." if path else ""
            for width, times in _widths(layers):
                makers = [a for a in layers if a.made == width * times and f"{before}{a.path}.weight" not in made]
                makers = [a for a in makers if before + a.path not in none]
                takers = [b for b in layers if b.given == width and f"{before}{b.path}.weight" not in taken]
                if not makers or len(takers) != 1 or any(a.given == width for a in makers):
                    continue
                key = (*(before + one.path for one in (*makers, *takers)), str(times))
                if key in tried:
                    continue
                tried.add(key)
                parts = [p for a in makers for p in a.makes(width, each=1, times=times)]
                parts.append(takers[0].takes(width, 1))
                where = f"{before}{makers[0].path}"
                if self.proven(path, module, parts, width, makers[0].given):
                    self.add("neuron", where, path, module, width, parts, [f"{makers[0].path}.weight"])
                    made |= {f"{before}{p.parameter}" for p in parts if not p.gate}
                    taken.add(f"{before}{takers[0].path}.weight")

    def probe(self, path: str, module: nn.Module, *widths: int, sizes: Sequence[int] = ()) -> Probe:
        """Return what modules of this make are tried on, with an input of the first number of features that they take."""
        make = _make(module)
        for width in () if make in self._probes else widths:
            self._probes[make] = Probe(module, width, self.seen.get(path, ()), sizes)
            if self._probes[make].runs:
                break
        return self._probes[make]

    def proven(
        self,
        path: str,
        module: nn.Module,
        parts: Sequence[Part],
        count: int,
        width: int,
        mixes: bool = False,
        turned: Sequence[Part] = (),
    ) -> bool:
        """Return whether a reading of a module's weights as units is right."""
        make = _make(module)
        reading = (
            *make,
            count,
            *(tuple((p.parameter, p.gate, p.pool, tuple(p.owner.reshape(-1).tolist())) for p in of) for of in (parts, turned)),
        )
        if reading not in self._known:
            each = next((p.owner.numel() // count for p in parts if p.gate), 1)
            probe = self.probe(path, module, width, sizes=(each, each // 2, each // 4))
            self._known[reading] = (
                (not mixes or probe.attends(parts, count))
                and probe.proves(parts, count, every=not mixes)
                and (not turned or probe.proves([*turned, *(p for p in parts if p.gate)], count, gone=-1.0))
            )
        return self._known[reading]

    def add(
        self,
        kind: str,
        where: str,
        path: str,
        module: nn.Module,
        count: int,
        parts: Sequence[Part],
        home: Sequence[str],
        note: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        """Keep units that were proven, unless they own tied weights."""
        before = f"{path}." if path else ""
        own = [attrs.evolve(p, parameter=before + p.parameter) for p in parts]
        for part in own:
            aliases = self.names.get(part.parameter, ())
            if len(aliases) != 1:
                self.lost[where] = f"own weights of {part.parameter!r}, which is tied to another"
                return
        where = where or type(module).__name__
        group = numbered(f"{kind}:{where}", kind, where, count, own, [before + n for n in home], note)
        self.groups.append(attrs.evolve(group, labels=tuple(labels) or group.labels))


def _make(module: nn.Module) -> tuple[Any, ...]:
    """Return what modules of the same make have in common."""
    return type(module), repr(module), tuple((n, tuple(p.shape)) for n, p in module.named_parameters())


def within(path: str, outer: str) -> bool:
    """Return whether a module is another one, or a part of it."""
    return path == outer or not outer or path.startswith(f"{outer}.")


def _linear(module: nn.Module) -> list[_Layer]:
    found = []
    for path, child in module.named_modules():
        if path and "weight" in child._parameters and (axis := linear_axis(child)) is not None:
            given, made = features(child)
            found.append(_Layer(path, child, given, made, axis))
    return found


def _widths(layers: Sequence[_Layer]) -> Iterator[tuple[int, int]]:
    """Yield numbers of neurons between two layers, and how often one layer makes them: twice where it makes their gates, too."""
    for width in dict.fromkeys(one.given for one in layers):
        yield width, 1
        yield width, 2


def number(module: nn.Module, names: Sequence[str]) -> int | None:
    """Return the number that a module, one within it or its configuration has under one of these names."""
    inner = [m for m in module.modules() if not isinstance(m, nn.MultiheadAttention)]
    for owner in (*inner, getattr(module, "config", None), *(getattr(m, "config", None) for m in inner)):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _head_readings(module: nn.Module, layers: Sequence[_Layer], count: int) -> Iterator[tuple[list[Part], str]]:
    """Yield what the heads' parts may be, with the weight of the layer that takes what they give."""
    shared = number(module, _SHARED)
    for out in reversed(layers):
        if out.given % count:
            continue
        each, rest = out.given // count, [one for one in layers if one is not out]
        gate, home = out.takes(count, each), f"{out.path}.weight"
        sizes = dict.fromkeys(n for n in (shared, count, 1) if n is not None and n <= count and count % n == 0)
        for kv in sizes:
            pool = count // kv
            for query, key, value in itertools.combinations(rest, 3):
                by_size = sorted((query, key, value), key=lambda one: -one.made)
                if [one.made for one in by_size] == [count * each, kv * each, kv * each]:
                    first, *others = by_size
                    parts = list(first.makes(count, each=each))
                    parts += [p for one in others for p in one.makes(count, pool=pool, each=each)]
                    yield [*parts, gate], home
            for one in rest:
                if one.made == (count + 2 * kv) * each:
                    yield [*_blocks(one, count, kv, each), gate], home
                    if pool == 1:
                        yield [*one.makes(count, each=3 * each), gate], home
            for query, both in itertools.permutations(rest, 2):
                if query.made == count * each and both.made == 2 * kv * each:
                    mine = list(query.makes(count, each=each))
                    yield [*mine, *both.makes(count, pool=pool, each=each, times=2), gate], home
                    yield [*mine, *both.makes(count, pool=pool, each=2 * each), gate], home


def _value_readings(
    module: nn.Module, layers: Sequence[_Layer], count: int
) -> Iterator[tuple[list[Part], str, list[Part]]]:
    """Yield what the heads' parts may be where queries and keys are normalised over all heads: values and columns alone.

    With them the parts of queries: their signs make no difference to a norm, nor to any other head.
    """
    shared = number(module, _SHARED)
    for out in reversed(layers):
        if out.given % count:
            continue
        each, rest = out.given // count, [one for one in layers if one is not out]
        for kv in dict.fromkeys(n for n in (shared, count, 1) if n is not None and n <= count and count % n == 0):
            for query, key, value in itertools.permutations(rest, 3):
                if (query.made, key.made, value.made) == (count * each, kv * each, kv * each):
                    turned = list(query.makes(count, each=each))
                    own = value.makes(count, each=each, pool=count // kv)
                    yield [*own, out.takes(count, each)], f"{out.path}.weight", turned
            for one in rest:
                if one.made == (count + 2 * kv) * each:
                    pool, start = count // kv, count * each
                    turned = list(one.makes(count, each=each))
                    own = one.makes(count, each=each, pool=pool, start=start + kv * each)
                    yield [*own, out.takes(count, each)], f"{out.path}.weight", turned


def _blocks(one: _Layer, count: int, kv: int, each: int) -> list[Part]:
    """Return the parts of one layer that makes queries, keys and values one after the other."""
    if kv == count:
        return list(one.makes(count, each=each, times=3))
    own = list(one.makes(count, each=each))
    return own + list(one.makes(count, pool=count // kv, each=each, times=2, start=count * each))
