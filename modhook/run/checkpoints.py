"""Where the checkpoints of a study lie: beside its cube, `scan.zarr.checkpoints/`, one file per run and stage."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from modhook.cube import Where
from modhook.run.beside import beside, readable
from modhook.steps.snapshot import PARTIAL, SUFFIX


@attrs.frozen
class Checkpoints:
    """The checkpoints of one cube. Nobody else knows their paths."""

    folder: Path

    @classmethod
    def of(cls, cube: Where) -> Checkpoints:
        """Return the checkpoints of the cube at this path; those of a cube at a URL lie in the current folder."""
        return cls(beside(cube, "checkpoints"))

    def path(self, labels: Mapping[str, Any], stage: str) -> Path:
        """Return the file of one stage of one run, `seed=3,masks.beta=1e-05,add-0f3c9a21b7d4.safetensors`."""
        text = ",".join([*(f"{k}={v}" for k, v in labels.items()), stage])
        # Labels may be long, or differ in what a file name cannot hold.
        unique = hashlib.blake2b(json.dumps([dict(labels), stage]).encode(), digest_size=6).hexdigest()
        return self.folder / f"{readable(text)}-{unique}{SUFFIX}"

    def carried(self, labels: Mapping[str, Any], stage: str) -> Path:
        """Return the file of what one stage of one run leaves to the next."""
        return self.path(labels, f"{stage} carried")

    def remove(self, labels: Mapping[str, Any], stage: str) -> None:
        """Remove the checkpoint of one stage of one run, if there is one."""
        self.path(labels, stage).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a killed process left half-written, and the folder where it is empty."""
        self._remove(PARTIAL)

    def clear(self) -> None:
        """Remove all checkpoints. Files of others in the folder stay, and then the folder does."""
        self._remove(PARTIAL, SUFFIX)

    def _remove(self, *endings: str) -> None:
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if file.name.endswith(endings):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
