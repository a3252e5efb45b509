"""What the parts of welded networks are asked: two functions of the same generated inputs, for vectors, sequences and small images.

Inputs are float tensors (N, n); answers are classes (N,). Training and held-out items never overlap: sequences are split over all
4**6 of them; vectors and images are drawn, and no two are alike.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

ITEMS = 8192
"""Vectors and images drawn, half of them to train on."""
SIDE = 8
"""Of an image."""


@attrs.frozen
class Question:
    """One function: what it asks, and its answers (N,), int64, of what inputs were made from."""

    doc: str
    answer: Callable[[Tensor], Tensor]


@attrs.frozen
class Kind:
    """Inputs of one kind: `make()` returns inputs (N, n) and what answers are computed from (N, ...); then the questions."""

    inputs: int
    classes: int
    make: Callable[[], tuple[Tensor, Tensor]]
    questions: dict[str, Question]


def vectors() -> tuple[Tensor, Tensor]:
    """Return vectors of four numbers in -1..1, twice: (N, 4)."""
    drawn = torch.rand(ITEMS, 4, generator=torch.Generator().manual_seed(1), device="cpu") * 2 - 1
    return drawn, drawn


def sequences() -> tuple[Tensor, Tensor]:
    """Return all sequences of six tokens 0..3 in a random order, as floats and as integers: (4096, 6)."""
    every = torch.cartesian_prod(*[torch.arange(4, device="cpu")] * 6)
    mixed = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(2), device="cpu")]
    return mixed.float(), mixed


def images() -> tuple[Tensor, Tensor]:
    """Return images (N, 64) of a bar of four pixels on noise, and its direction and quadrant (N, 2)."""
    generator = torch.Generator().manual_seed(3)
    direction, quadrant = torch.randint(0, 4, (2, ITEMS), generator=generator, device="cpu")
    steps = torch.arange(4, device="cpu")
    bars = torch.zeros(4, 4, 4, device="cpu")  # (direction, row, column): across, down, falling, rising
    bars[0, 1], bars[1, :, 2] = 1, 1
    bars[2, steps, steps], bars[3, steps, 3 - steps] = 1, 1
    picture = torch.zeros(ITEMS, 2, 4, 2, 4, device="cpu")  # (N, upper or lower, row, left or right, column)
    picture[torch.arange(ITEMS, device="cpu"), quadrant // 2, :, quadrant % 2] = bars[direction]
    picture = picture.view(ITEMS, SIDE * SIDE) + 0.2 * torch.randn(
        ITEMS, SIDE * SIDE, generator=generator, device="cpu"
    )
    return picture, torch.stack([direction, quadrant], 1)


KINDS = {
    "vectors": Kind(
        4,
        5,
        vectors,
        {
            "largest": Question("which of four numbers is the largest", lambda x: x.argmax(1)),
            "positive": Question("how many of four numbers are positive", lambda x: (x > 0).sum(1)),
        },
    ),
    "sequences": Kind(
        6,
        7,
        sequences,
        {
            "zeros": Question("how many of six tokens are 0", lambda x: (x == 0).sum(1)),
            "ends": Question("the larger of the first token and the last", lambda x: x[:, [0, -1]].amax(1)),
        },
    ),
    "images": Kind(
        SIDE * SIDE,
        4,
        images,
        {
            "direction": Question("which way the bar points", lambda x: x[:, 0]),
            "quadrant": Question("in which quarter of the image the bar is", lambda x: x[:, 1]),
        },
    ),
}


def items(kind: str, question: str) -> dict[str, Tensor]:
    """Return all items of a question: `inputs` (N, n + 2), the last two of which ask for it, and `target` (N,)."""
    made = KINDS[kind]
    inputs, source = made.make()
    asked = (
        F.one_hot(torch.tensor(list(made.questions).index(question), device="cpu"), 2).float().expand(len(inputs), 2)
    )
    return {"inputs": torch.cat([inputs, asked], 1), "target": made.questions[question].answer(source)}
