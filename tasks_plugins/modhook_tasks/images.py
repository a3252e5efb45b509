"""What image classification tasks share: images as tensors of bytes, their split, normalisation, loss, scores.

A data set holds `image` (N, C, H, W) uint8 and `label` (N,) uint8; pixels become numbers batch by batch.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modhook import Task

SPLIT_SEED = 0xC1CAFA52
"""An image is for training where `RandomState(SPLIT_SEED).rand(n) > 0.2` (reference, section 3)."""


@attrs.frozen(eq=False)
class Images:
    """Images with labels: `pixels` (N, C, H, W) and `labels` (N,), both uint8."""

    pixels: Tensor
    labels: Tensor

    def where(self, keep: Tensor) -> Images:
        """Return the images that a boolean tensor (N,) keeps."""
        return Images(self.pixels[keep], self.labels[keep])

    def batch(self) -> dict[str, Tensor]:
        """Return them as a task's data set."""
        return {"image": self.pixels, "label": self.labels}

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of every channel, each (C,) float32, of pixels in 0..255."""
        counts = [torch.bincount(c.flatten(), minlength=256).double() for c in self.pixels.unbind(1)]
        values = torch.arange(256, dtype=torch.float64, device="cpu")
        means = torch.stack([(c * values).sum() / c.sum() for c in counts])  # (C,)
        squares = torch.stack(
            [(c * (values - m) ** 2).sum() / (c.sum() - 1) for c, m in zip(counts, means, strict=True)]
        )
        return means.float(), squares.sqrt().float()


def split(images: Images) -> tuple[Images, Images]:
    """Return the training and the validation images."""
    training = torch.from_numpy(np.random.RandomState(SPLIT_SEED).rand(len(images.labels)) > 0.2)  # (N,)
    return images.where(training), images.where(~training)


def generated(count: int, channels: int, size: int, classes: int = 10, seed: int = 1) -> Images:
    """Return made-up images for smoke tests: a coarse pattern per class, and noise. They show nothing about anything."""
    random = np.random.RandomState(seed)
    patterns = random.randint(0, 256, (classes, channels, 4, 4)).repeat(-(-size // 4), 2).repeat(-(-size // 4), 3)
    labels = random.randint(0, classes, count)
    noisy = patterns[labels][:, :, :size, :size] * 0.7 + random.randint(0, 77, (count, channels, size, size))
    return Images(torch.from_numpy(noisy.astype(np.uint8)), torch.from_numpy(labels.astype(np.uint8)))


class ImageTask(Task):
    """Classification of images: cross-entropy, and the share of images whose most likely class is right.

    A subclass calls `normalise` when it loads.
    """

    label_name = "label"
    classes: tuple[str, ...] = tuple("0123456789")
    """Names of the classes, in the order of their labels."""
    _mean: Tensor
    _deviation: Tensor

    def normalise(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the channels' means and deviations, (C,) each, of pixels in 0..255."""
        self._mean, self._deviation = mean.view(-1, 1, 1), deviation.view(-1, 1, 1)

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `image` (B, C, H, W) float32, normalised, and `label` (B,) int64."""
        pixels = batch["image"]
        mean, deviation = self._mean.to(pixels.device), self._deviation.to(pixels.device)
        return {"image": (pixels.float() - mean) / deviation, "label": batch["label"].long()}

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(net(batch["image"]), batch["label"])

    def logits(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return each image's logits (B, C)."""
        logits: Tensor = net(batch["image"])
        return logits

    def predict(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return each image's most likely class (B,)."""
        return self.logits(net, batch).argmax(-1)

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where the most likely class is right."""
        return {"accuracy": (self.predict(net, batch) == batch["label"]).double()}

    def decode(self, batch: dict[str, Any]) -> list[str]:
        """Return the names of the images' classes."""
        return [self.classes[label] for label in batch["label"].tolist()]
