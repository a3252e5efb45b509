"""Weights & Biases: one W&B run per run of the study, grouped by the cube's name.

What W&B reads from its environment holds: `WANDB_MODE=offline` needs no network and no account (`wandb sync` uploads later),
`WANDB_PROJECT` names another project than `modhook`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modhook import Tracker, UserError
from modhook_plugins.trackers.places import beside


class WandB(Tracker):
    """Logs `STAGE/loss`, `STAGE/gradient_norm`, `STAGE/density` over `STAGE/step`, and `STAGE/accuracy/SPLIT`; files in `NAME-wandb`."""

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                'the tracker "wandb" needs the package wandb; install it with pip install "modhook[wandb]".'
            ) from error
        self._wandb: Any = wandb
        self._run: Any = None
        self._folder, self._group = Path(), ""
        self._stage, self._step = "", 0

    def place(self, cube: str) -> None:
        """Keep W&B's files beside the cube, and group runs by its name."""
        self._folder = beside(cube, "wandb")
        self._group = self._folder.name.removesuffix("-wandb")

    def run_started(self, label: str) -> None:
        """Begin a W&B run, with the coordinates as its configuration."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "modhook"),
            group=self._group,
            name=label,
            dir=str(self._folder),
            config=dict(pair.split("=", 1) for pair in label.split(", ") if "=" in pair),
            settings=self._wandb.Settings(console="off", silent=True),
        )

    def stage_started(self, stage: str, steps: int) -> None:
        """Give the stage's curves their own axis."""
        self._stage, self._step = stage, 0
        self._run.define_metric(f"{stage}/step")
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log what was logged at this step."""
        self._step = step
        self._log({name: value for name, value in values.items() if name != "step"})

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Log the scores at the stage's last step."""
        self._log(scores)

    def run_finished(self, label: str) -> None:
        """End the W&B run."""
        self.close()

    def close(self) -> None:
        """End what is open."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()

    def _log(self, values: Mapping[str, float]) -> None:
        named = {f"{self._stage}/{name}": value for name, value in values.items() if math.isfinite(value)}
        if named:
            self._run.log({**named, f"{self._stage}/step": self._step})
