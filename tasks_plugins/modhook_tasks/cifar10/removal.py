"""CIFAR-10 class removal (reference, section 3): what becomes of a class whose images the mask never saw?

Stages: all classes (the control), then one per removed class, on the training set without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from modhook import Stage, UserError
from modhook_tasks.cifar10.base import CLASSES, Cifar10Base, CifarOptions, known_classes


@attrs.frozen
class Cifar10Options(CifarOptions):
    """Options of the task `cifar10`."""

    removed: tuple[str, ...] = attrs.field(default=CLASSES, validator=known_classes)
    """One stage for each of these classes, without its images."""
    control: bool = True
    """Whether a mask on all classes comes first."""
    copied: tuple[str, ...] = ("output.*",)
    """Patterns of the parameters whose mask is the control's in every later stage."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.control and not self.removed:
            raise UserError("control is off and removed is empty, so that there is no mask to learn; set one of them.")


class Cifar10(Cifar10Base):
    """The output layer's mask is copied from the control: a class is not removed by cutting off its output."""

    Options = Cifar10Options
    options: Cifar10Options

    @property
    def control(self) -> bool:  # type: ignore[override]
        """Whether the first stage is the control."""
        return self.options.control

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The control, then one stage per removed class, named after it."""
        copied = self.options.copied if self.control else ()
        first = (Stage("control", "all classes"),) if self.control else ()
        return (*first, *(Stage(c, f"all classes but {c}", copied=copied) for c in self.options.removed))

    def trained_on(self, stage: str | None) -> Sequence[str]:
        """Return all classes but the removed one."""
        return [c for c in CLASSES if c != stage]
