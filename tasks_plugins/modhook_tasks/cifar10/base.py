"""What the CIFAR-10 tasks share: source, split, normalisation, augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modhook import UserError
from modhook.errors import near_miss
from modhook.values.moving import moved
from modhook_tasks.data import cifar
from modhook_tasks.images import Images, ImageTask, generated, split
from modhook_tasks.permuted_mnist import check_folder

CLASSES = cifar.CLASSES
_FIXED = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_PADDING = 4


def known_classes(_: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """Raise `UserError` for a class that CIFAR-10 does not have, or that is named twice."""
    for name in value:
        if name not in CLASSES:
            hint = near_miss(name, CLASSES)
            raise UserError(f"{attribute.name}: unknown class {name!r}{hint}; CIFAR-10 has {', '.join(CLASSES)}.")
    if len(set(value)) < len(value):
        raise UserError(f"{attribute.name} names a class twice: {', '.join(value)}.")


@attrs.frozen
class CifarOptions:
    """Options of all CIFAR-10 tasks."""

    source: Literal["official", "folder", "generated"] = "official"
    """`official`: downloaded once; `folder`: the official binary files in `folder`; `generated`: made-up images, for smoke
    tests only."""
    folder: str | None = None
    """The folder (or archive) with the official binary version."""
    evaluation: Literal["valid", "test"] = "valid"
    """`valid`: a fifth of the training images is held out and measured on; `test`: all of them train, the official test set
    is measured on."""
    normalisation: Literal["measured", "fixed"] = "measured"
    """`measured`: mean and deviation of every channel over all training images; `fixed`: the numbers used with ResNets."""
    augment: bool = False
    """Shift training images by up to 4 pixels, and mirror half of them."""

    def __attrs_post_init__(self) -> None:
        check_folder(self.source, self.folder)


class Cifar10Base(ImageTask):
    """Images (3, 32, 32) in 10 classes; one split, `valid` or `test`."""

    classes = CLASSES
    options: Any

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._parts: tuple[Images, Images] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The images that are not trained on."""
        return (self.options.evaluation,)

    def shape(self) -> Mapping[str, Any]:
        """Return the channels and classes: 3 and 10."""
        return {"channels": 3, "outputs": len(CLASSES)}

    def load(self) -> None:
        """Read or download the images. Raises `DataError`."""
        train = self._read(cifar.TRAIN)
        if self.options.normalisation == "fixed":
            mean, deviation = (255 * torch.tensor(numbers, device="cpu") for numbers in _FIXED)
            self.normalise(mean, deviation)
        else:
            self.normalise(*train.normalisation())
        self._parts = split(train) if self.options.evaluation == "valid" else (train, self._read(cifar.TEST))

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return the training images of a stage's classes."""
        return self._of(self._images(0), self.trained_on(stage)).batch()

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return all images of the one split."""
        if split not in self.splits:
            raise UserError(f"unknown split {split!r}; this study has {self.splits[0]}.")
        return self._images(1).batch()

    def trained_on(self, stage: str | None) -> Sequence[str]:
        """Return the classes that a stage trains on."""
        return CLASSES

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `image` (B, 3, 32, 32) float32, shifted and mirrored in training where that is wanted, and `label` (B,)."""
        if training and self.options.augment:
            batch = batch | {"image": augmented(batch["image"], rng)}
        return super().prepare(batch, rng, training)

    def _images(self, part: int) -> Images:
        if self._parts is None:
            self.load()
        assert self._parts is not None
        return self._parts[part]

    def _read(self, files: Sequence[str]) -> Images:
        if self.options.source == "generated":
            return generated(200 * len(files), 3, 32)
        if self.options.source == "folder":
            return cifar.from_folder(Path(self.options.folder).expanduser(), files)
        return cifar.official(files)

    def _of(self, images: Images, classes: Sequence[str]) -> Images:
        if len(classes) == len(CLASSES):
            return images
        wanted = torch.tensor([name in classes for name in CLASSES], device="cpu")  # (10,)
        return images.where(wanted[images.labels.long()])


def augmented(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Return images (B, C, H, W) cut at random from themselves with a black border of 4 pixels, every second one mirrored."""
    count, _, height, width = pixels.shape
    down, right = (torch.from_numpy(rng.integers(0, 2 * _PADDING + 1, (count, 1))) for _ in range(2))  # (B, 1)
    mirrored = torch.from_numpy(rng.random((count, 1)) < 0.5)
    rows = down + torch.arange(height, device="cpu")  # (B, H)
    across = torch.arange(width, device="cpu")
    columns = right + torch.where(mirrored, across.flip(0), across)  # (B, W)
    padded = F.pad(pixels, (_PADDING,) * 4)
    items = torch.arange(count, device=pixels.device).view(-1, 1, 1)
    rows, columns = moved(rows.unsqueeze(2), pixels.device), moved(columns.unsqueeze(1), pixels.device)
    return padded[items, :, rows, columns].permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
