"""CIFAR-10 mask stability (reference, section 3): how much do two masks of the same function differ?

Two masks for each set of classes, which differ in the order of the data and in the noise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import attrs
import numpy as np
from annotated_types import Ge, Le

from modhook import Stage
from modhook_tasks.cifar10.base import CLASSES, Cifar10Base, CifarOptions


@attrs.frozen
class StabilityOptions(CifarOptions):
    """Options of the task `cifar10_stability`."""

    sets: Literal["pairs", "leave_one_out"] = "pairs"
    """Train on random pairs of classes, or on all classes but one."""
    pairs: Annotated[int, Ge(1), Le(90)] = 10
    """How many of the 90 ordered pairs."""
    pairs_seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 1234
    """Draws the pairs."""
    redraw: bool = False
    """Draw other pairs for every seed, as the paper does; they are called `pair 1`, `pair 2`, ... Otherwise all seeds have
    the same pairs, called by their classes."""
    copied: tuple[str, ...] = ()
    """Patterns of parameters whose mask every stage copies from the very first one. The paper's code does so for the output
    layer, which makes the masks more alike than they are."""


class Cifar10Stability(Cifar10Base):
    """Stages `SET 1` and `SET 2` for every set of classes; there is no control."""

    Options = StabilityOptions
    options: StabilityOptions
    control = False
    _seed = 0

    def for_seed(self, seed: int) -> Cifar10Stability:
        """Return the task with this seed's pairs, on the same images."""
        if not self.options.redraw:
            return self
        drawn = copy.copy(self)
        drawn._seed = seed
        return drawn

    @property
    def sets(self) -> Mapping[str, Sequence[str]]:
        """The sets of classes by name, `cat-dog`, `pair 1` or `without cat`."""
        o = self.options
        if o.sets == "leave_one_out":
            return {f"without {c}": [other for other in CLASSES if other != c] for c in CLASSES}
        if o.redraw:
            pairs = ordered_pairs(o.pairs, [o.pairs_seed, self._seed])
            return {f"pair {i}": pair for i, pair in enumerate(pairs, 1)}
        return {"-".join(pair): pair for pair in ordered_pairs(o.pairs, o.pairs_seed)}

    @property
    def repeats(self) -> Mapping[str, tuple[str, str]]:
        """The two stages of every set."""
        first, second = "ab" if self.options.redraw else "12"  # "pair 1 1" would be hard to read
        return {name: (f"{name} {first}", f"{name} {second}") for name in self.sets}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Two stages per set; those after the very first one copy what is to be copied."""
        names = [(stage, name) for name, both in self.repeats.items() for stage in both]
        return tuple(
            Stage(stage, self._about(name), copied=self.options.copied if i else ())
            for i, (stage, name) in enumerate(names)
        )

    def _about(self, name: str) -> str:
        if self.options.redraw and self.options.sets == "pairs":
            return "two classes, other ones for every seed"
        return f"the classes {', '.join(self.sets[name])}"

    def trained_on(self, stage: str | None) -> Sequence[str]:
        """Return the stage's set of classes; base training has all."""
        return next((self.sets[name] for name, both in self.repeats.items() if stage in both), CLASSES)


def ordered_pairs(count: int, seed: int | Sequence[int]) -> list[tuple[str, str]]:
    """Return `count` of the 90 ordered pairs of two classes, drawn without replacement."""
    every = [(a, b) for a in CLASSES for b in CLASSES if a != b]
    return [every[i] for i in np.random.RandomState(seed).choice(len(every), count, replace=False)]
