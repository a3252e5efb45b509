"""TensorBoard: one curve per stage and value, masks as pictures, one TensorBoard run per run of the study, with its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modhook import Tracker, UserError
from modhook_plugins.trackers.pictures import pictures
from modhook_plugins.trackers.places import beside, plain


class TensorBoard(Tracker):
    """Writes `NAME-tensorboard` beside the cube `NAME.zarr`; `tensorboard --logdir` shows it.

    Scalars: `STAGE/loss`, `STAGE/gradient_norm`, `STAGE/density` and others over the stage's steps, and `STAGE/accuracy/SPLIT` at its end.
    Images: `STAGE/mask/PARAMETER`, black what is kept. The study's settings are the run's hyper-parameters (the page HPARAMS), and the
    scores of all its stages, `final/STAGE/accuracy/SPLIT`, their metrics.
    """

    apart = True

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError as error:
            raise UserError(
                'the tracker "tensorboard" needs the package tensorboard; install it with pip install "modhook[tensorboard]".'
            ) from error
        self._make: Any = SummaryWriter
        self._hparams: Any = hparams
        self._settings: Mapping[str, Any] = {}
        self._writer: Any = None
        self._folder = Path()
        self._stage, self._step = "", 0

    def place(self, cube: str) -> None:
        """Log beside the cube."""
        self._folder = beside(cube, "tensorboard")

    def run_started(self, label: str) -> None:
        """Open this run's log."""
        self.close()
        self._writer = self._make(str(self._folder / plain(label)))
        self._settings = {}

    def run_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep them for the run's end: TensorBoard wants them together with the metrics' names."""
        self._settings = settings

    def stage_started(self, stage: str, steps: int) -> None:
        """Name the curves that follow."""
        self._stage, self._step = stage, 0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was logged at this step."""
        self._step = step
        self._write({name: value for name, value in values.items() if name != "step"})

    def stage_masks(self, stage: str, masks: Mapping[str, Tensor]) -> None:
        """Write a picture per tensor."""
        for name, picture in pictures(masks):
            self._writer.add_image(f"{stage}/mask/{name}", picture, self._step, dataformats="HW")

    def stage_finished(self, stage: str, scores: Mapping[str, float]) -> None:
        """Write the scores at the stage's last step."""
        self._write(scores)
        self._writer.flush()

    def run_scores(self, scores: Mapping[str, float]) -> None:
        """Write the run's settings, and its scores as what they led to."""
        final = {f"final/{name}": value for name, value in scores.items()}
        for name, value in final.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value)
        # TensorBoard keeps the first list of metrics of a run, so it must name those that come later, too.
        for summary in self._hparams(dict(self._settings), final):
            self._writer.file_writer.add_summary(summary)

    def run_finished(self, label: str) -> None:
        """Close this run's log."""
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{self._stage}/{name}", value, self._step)
