"""Base training that runs of a sweep have in common, those that differ in settings of masks alone, is computed once.

The run that trains leaves the state in which its step loops ended beside the cube, among the checkpoints, as long as others are still to
be trained; these start from it, and do what comes after the loops themselves. So each is, bit for bit, what it would be without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from modhook.cube import Cube
from modhook.errors import DamageError
from modhook.run.checkpoints import Checkpoints
from modhook.steps.checkpoint import Common

MASKS = ("masks", "sampler")
"""Tables of a study that nothing before the first mask depends on."""


@frozen
class Alike:
    """A stage before the first mask, and the runs that have it in common with this one."""

    cube: Cube
    labels: Mapping[str, Any]
    stage: str

    @property
    def path(self) -> Path:
        """The file, the same for all of them."""
        return Checkpoints.of(self.cube.path).path(self._common(self.labels), f"{self.stage} ended")

    def waited_for(self) -> bool:
        """Whether the stage of another of them is still to be computed."""
        mine, own = self._common(self.labels), dict(self.labels)
        others = (run for run in self.cube.runs() if run != own and self._common(run) == mine) if len(mine) < len(own) else ()
        return any(self._pending(run) for run in others)

    def kept(self, identity: Mapping[str, Any]) -> Common:
        """Return where to find and leave the stage; the settings of masks are taken out of what it depends on."""
        study = {k: v for k, v in identity["study"].items() if k not in MASKS}
        common = {**identity, "study": study, "run": {k: str(v) for k, v in self._common(self.labels).items()}}
        return Common(self.path, common, self.stage, ", ".join(f"{k}={v}" for k, v in self.labels.items()))

    def remove_unneeded(self) -> None:
        """Remove the file once nobody waits for it."""
        if self.path.exists() and not self.waited_for():
            self.path.unlink(missing_ok=True)

    def _pending(self, run: Mapping[str, Any]) -> bool:
        with contextlib.suppress(DamageError):  # of a run that nobody asked for, maybe
            return self.cube.status(run, self.stage) == "pending"
        return False

    @staticmethod
    def _common(labels: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in labels.items() if k.partition(".")[0] not in MASKS}
