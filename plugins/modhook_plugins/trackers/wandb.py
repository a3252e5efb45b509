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

from torch import Tensor

from modhook import Tracker, UserError
from modhook_plugins.trackers.pictures import pictures
from modhook_plugins.trackers.places import beside


class WandB(Tracker):
    """Logs `STAGE/loss`, `STAGE/gradient_norm`, `STAGE/density` over `STAGE/step`, and `STAGE/accuracy/SPLIT`; files in `NAME-wandb`.

    `STAGE/mask/PARAMETER` are pictures, black what is kept. The study's settings are the W&B run's configuration, the scores of
    all its stages are in its summary.
    """

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
        """Begin a W&B run."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "modhook"),
            group=self._group,
            name=label,
            dir=str(self._folder),
            settings=self._wandb.Settings(console="off", silent=True),
        )

    def run_settings(self, settings: Mapping[str, Any]) -> None:
        """Make them the run's configuration."""
        self._run.config.update(dict(settings))

    def stage_started(self, stage: str, steps: int) -> None:
        """Give the stage's curves their own axis."""
        self._stage, self._step = stage, 0
        self._run.define_metric(f"{stage}/step")
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log what was logged at this step."""
        self._step = step
        self._log({name: value for name, value in values.items() if name != "step"})

    def stage_masks(self, stage: str, masks: Mapping[str, Tensor]) -> None:
        """Log a picture per tensor, with how much of it is kept."""
        for name, picture in pictures(masks):
            kept = f"{int(masks[name].sum()):,} of {masks[name].numel():,} weights kept"
            self._run.log({f"{stage}/mask/{name}": self._wandb.Image(picture, caption=kept), f"{stage}/step": self._step})

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Log the scores at the stage's last step."""
        self._log(scores)

    def run_scores(self, scores: Mapping[str, float]) -> None:
        """Put the scores of all stages, also of those that were in the cube before, into the run's summary."""
        self._run.summary.update({name: value for name, value in scores.items() if math.isfinite(value)})

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
