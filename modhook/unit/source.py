"""Candidates for units, and which tensor holds them."""

from __future__ import annotations

import attrs
import torch

from modhook.unit.group import Group, Part, numbered


@attrs.define(eq=False)
class Source:
    """Candidates for units: what one layer gives, or several whose units are one. `firm`: they never become one with others."""

    size: int
    kind: str
    module: str
    parts: list[Part] = attrs.field(factory=list)
    home: list[str] = attrs.field(factory=list)
    lost: str = ""
    firm: bool = False
    joined: Source | None = None

    @property
    def own(self) -> Source:
        """The candidates that these have become one with."""
        return self if self.joined is None else self.joined.own

    def lose(self, why: str) -> None:
        """Note why these are no units."""
        self.own.lost = self.own.lost or why

    def group(self, note: str = "") -> Group:
        """Return the units."""
        parts: list[Part] = []
        for part in self.parts:  # a layer that is called twice takes them by the same columns
            if not any(p.parameter == part.parameter and torch.equal(p.owner, part.owner) for p in parts):
                parts.append(part)
        return numbered(f"{self.kind}:{self.module}", self.kind, self.module, self.size, parts, self.home, note)

    def join(self, other: Source) -> None:
        """Make these and others one: unit by unit."""
        one, two = self.own, other.own
        if one is two:
            return
        if one.firm or two.firm:  # a recurrent layer's stay its own
            one.lose(f"meet those of {two.module!r}")
            two.lose(f"meet those of {one.module!r}")
            return
        if one.size != two.size:
            one.lose(f"meet {two.size} others of {two.module!r}")
            two.lose(f"meet {one.size} others of {one.module!r}")
            return
        one.parts += two.parts
        one.home += [n for n in two.home if n not in one.home]
        one.kind = "channel" if "channel" in (one.kind, two.kind) else one.kind
        one.lost, two.joined = one.lost or two.lost, one


@attrs.frozen(eq=False)
class Tag:
    """Whose units a tensor holds along one dimension, one after the other.

    `axis`: 1 for channels, -1 for features. `flat`: "major": (channels x places) in the last dimension, channels first; "minor": places
    first; "" for neither. `places`: how many dimensions follow the channels. `thin`: it may have but one number per item, if it has no
    places.
    """

    sources: tuple[Source, ...]
    axis: int
    flat: str = ""
    places: int = 0
    thin: bool = False

    @property
    def size(self) -> int:
        """How many units there are."""
        return sum(s.size for s in self.sources)

    def lose(self, why: str) -> None:
        """Note why these are no units."""
        for source in self.sources:
            source.lose(why)
