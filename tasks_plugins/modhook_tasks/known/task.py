"""The task `known`: a network whose modules are known, asked for each of its functions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import attrs
import torch
from annotated_types import Ge
from torch import Tensor

from modhook import Stage, Task, UserError
from modhook_tasks.known.catalogue import build
from modhook_tasks.known.structure import Data, Function, Known, loss, score


@attrs.frozen
class KnownOptions:
    """Options of the task `known`."""

    network: str = "frac_prevs+hist"
    """Which network (docs/known.md): `modhook_tasks.known.networks(controls=True)`."""
    seed: Annotated[int, Ge(0)] = 0
    """Of what is random in the network; the seeds of the study are those of the masks."""
    functions: tuple[str, ...] = ()
    """The functions to look for; none given: all of the network's."""
    labels: Literal["names", "numbers"] = "names"
    """What stages and splits are called: by the functions' names, or `function1`, `function2`, so that networks with other
    functions fit in one sweep."""


class KnownTask(Task):
    """One stage and one split, held-out items, per function; no base training, so that the protocol is `given`."""

    Options = KnownOptions
    options: KnownOptions
    control = False
    label_name = "target"

    @cached_property
    def known(self) -> Known:
        """The network with its functions and its truth."""
        return build(self.options.network, self.options.seed)

    def load(self) -> None:
        """Make the data; refuse a network or functions that are not there."""
        if unknown := [name for name in self.options.functions if name not in self.known.functions]:
            raise UserError(
                f"task.functions names {', '.join(map(repr, unknown))}, but the functions of {self.options.network!r} are "
                f"{', '.join(self.known.functions)}."
            )
        if len(set(self.options.functions)) != len(self.options.functions):
            raise UserError("task.functions names a function twice.")

    @property
    def functions(self) -> dict[str, Function]:
        """The functions that are looked for, by label."""
        wanted = [self.known.functions[name] for name in self.options.functions or self.known.functions]
        return {f.name if self.options.labels == "names" else f"function{f.number}": f for f in wanted}

    @property
    def splits(self) -> tuple[str, ...]:
        """The functions' labels."""
        return tuple(self.functions)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One per function."""
        return tuple(Stage(label, function.doc) for label, function in self.functions.items())

    def shape(self) -> Mapping[str, Any]:
        """Return which network it is, for the network plugin `known`."""
        return {"known": self.options.network, "known_seed": self.options.seed}

    def train_set(self, stage: str | None) -> Data:
        """Return a function's training items, or all functions'."""
        if stage is not None:
            return self.functions[stage].train
        data = [function.train for function in self.functions.values()]
        return {name: torch.cat([d[name] for d in data]) for name in data[0]}

    def test_set(self, split: str) -> Data:
        """Return a function's held-out items."""
        return self.functions[split].test

    def nonsense(self, data: Data, stage: str, seed: int) -> Data:
        """Return the data with other classes. Raises `UserError` where the answers are numbers."""
        if "tolerance" in data:
            raise UserError(
                f"the functions of {self.options.network!r} return numbers and not classes, which cannot change places; leave "
                "controls.nonsense out."
            )
        return super().nonsense(data, stage, seed)

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the squared distance to the exact outputs, or the cross-entropy."""
        return loss(net, batch)

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where everything that is asked for is right."""
        return {"accuracy": score(net, batch)}
