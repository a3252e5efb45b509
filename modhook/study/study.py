"""A checked study."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import attrs

from modhook.study.controls import ControlsSection
from modhook.study.sections import MasksSection, RunSection, StudySection, TrainSection

Label = str | int | float


@attrs.frozen
class Named:
    """A plugin's name and its options.

    `options` is an instance of the plugin class's `Options`; for a network given as a callable (`package.module:callable` or
    `file.py:callable`) it is a dictionary of keyword arguments.
    """

    name: str
    options: Any

    @property
    def is_callable(self) -> bool:
        """Whether the name is that of code, such as `package.module:callable`, and not a plugin's."""
        return ":" in self.name


@attrs.frozen
class Study:
    """A study whose every part has been checked: sections, plugins' options, sweep points.

    In a study with a sweep, swept keys have the sweep's first value here; `points` gives each point's own study.
    """

    study: StudySection
    task: Named
    model: Named
    train: TrainSection
    masks: MasksSection
    run: RunSection
    analyses: Mapping[str, Any]
    protocol: Any = None
    """The protocol's options (`[protocol]`)."""
    sampler: Any = None
    """The sampler's options (`[sampler]`)."""
    controls: ControlsSection = attrs.field(factory=ControlsSection)
    """The controls that learn masks; those that only score are among `analyses`."""
    masked_stages: tuple[str, ...] = ()
    """The stages that leave a mask, in order, without those of controls."""
    sweep: Mapping[str, tuple[Any, ...]] = attrs.field(factory=dict)
    path: pathlib.Path | None = None
    variant: str | None = None
    grid: tuple[Point, ...] = attrs.field(default=(), repr=False)

    @property
    def cube_name(self) -> str:
        """The name of the cube without its suffix: `scan`, or `scan-quick` for the variant *quick*."""
        return f"{self.study.name}-{self.variant}" if self.variant else self.study.name

    @property
    def mask_batch(self) -> int:
        """Batch size of the mask stages."""
        return self.masks.batch if self.masks.batch is not None else self.train.batch

    @property
    def mask_clip(self) -> float | None:
        """Largest norm of the logits' gradient in the mask stages; None for no clipping."""
        return (self.masks.clip or None) if self.masks.clip is not None else self.train.clip

    @property
    def reg_batch(self) -> int:
        """What the mask regulariser `beta` is divided by."""
        return self.masks.reg_batch if self.masks.reg_batch is not None else self.train.batch


@attrs.frozen
class Point:
    """One point of the grid: its coordinate label on every swept key, and its study, which has no sweep."""

    labels: dict[str, Label]
    study: Study
