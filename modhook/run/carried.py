"""The gradients that one stage hands to the next (`masks.clip_over = "all"`), while a run is not finished.

A run that goes on has them in memory. For one that is stopped between two stages they lie beside the cube, among the
checkpoints, one file per run, until the next stage is done: the cube of a finished study holds nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from modhook.errors import CheckpointError
from modhook.plugin.contract import CarriedGradients
from modhook.steps.ranks import even, from_first, rank, spread
from modhook.steps.snapshot import read_snapshot, write_snapshot


@attrs.define
class CarriedFile:
    """What one stage of one run left behind, in one file.

    Attributes:
        path: the file. identity: what it depends on; a file of another run, data or network is not used.
        say: told in one sentence why a file is not used, or cannot be written.
    """

    path: Path
    identity: Mapping[str, Any]
    say: Callable[[str], None]

    def write(self, carried: CarriedGradients) -> None:
        """Write the file, on the first rank. A disk that refuses it does not end the run."""
        if rank():
            return
        state = {"identity": dict(self.identity), "weights": dict(carried.weights), "logits": carried.logits}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_snapshot(self.path, state)
        except (OSError, CheckpointError) as error:
            self.say(f"{self.path} cannot be written ({error}); the run goes on, but cannot be continued exactly.")

    def read(self, model: nn.Module) -> CarriedGradients | None:
        """Return what the file holds, the same on every rank; None where there is none that fits."""
        found = self._read() if rank() == 0 else None
        return _shared(found, model) if spread() else found

    def remove(self) -> None:
        """Remove the file: the next stage is done."""
        if rank() == 0:
            self.path.unlink(missing_ok=True)

    def _read(self) -> CarriedGradients | None:
        try:
            if not self.path.exists():
                raise CheckpointError(f"{self.path} is gone.")
            state = read_snapshot(self.path)
            if state["identity"] != dict(self.identity):
                raise CheckpointError(f"{self.path} is of another computation.")
        except CheckpointError as error:
            self.say(
                f"{error} This stage's clipping starts without the gradients of the stages before, as after loaded weights; "
                "its first steps differ a little from those of a run that was never stopped."
            )
            return None
        return CarriedGradients(state["weights"], state["logits"])


def level(carried: CarriedGradients) -> CarriedGradients:
    """Return the first rank's gradients."""
    even(carried.weights.values())
    return attrs.evolve(carried, logits=_level(carried.logits))


def _shared(found: CarriedGradients | None, model: nn.Module) -> CarriedGradients | None:
    """Give every rank what the first one read."""
    parameters = dict(model.named_parameters())
    known = [] if found is None else [n for n in parameters if n in found.weights]
    flags = from_first([int(found is not None), *(int(n in known) for n in parameters)])
    if not flags[0]:
        return None
    names = [n for n, there in zip(parameters, flags[1:], strict=True) if there]
    weights = {n: torch.zeros_like(parameters[n]).detach() for n in names}
    if found is not None:
        for name in names:
            weights[name].copy_(found.weights[name])
    return level(CarriedGradients(weights, 0.0 if found is None else found.logits))


def _level(number: float) -> float:
    """Return the first rank's number, bit for bit."""
    return _as_float(from_first([_as_int(number)])[0])


def _as_int(number: float) -> int:
    return int(torch.tensor(number, dtype=torch.float64, device="cpu").view(torch.int64).item())


def _as_float(bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int64, device="cpu").view(torch.float64).item())
