"""Addition or multiplication of two-digit numbers modulo 100; the operation is an input (reference, section 3).

Both functions live in one network: do they share weights? Stages: control (both operations), add, mul.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

import attrs
import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from modhook import Stage, Task
from modhook_tasks.digits import one_hot_digits, split_digits

SEED = 0x12345678
OPERATIONS = ("add", "mul")
_ONE_HOT = one_hot_digits(torch.arange(100, device="cpu"))  # (100, 20)


@attrs.frozen
class AddMulOptions:
    """Options of the add/mul task."""

    train_size: Annotated[int, Ge(1)] = 1_000_000
    """Training problems drawn, with both operations together."""
    valid_size: Annotated[int, Ge(1)] = 10_000
    """Problems drawn for the `iid` split; `add` and `mul` are its two parts."""


class AddMul(Task):
    """`a op b mod 100` for a, b in 0..99: 42 inputs (4 digits one-hot, the operation), 2 output digits."""

    Options = AddMulOptions
    options: AddMulOptions
    operations = OPERATIONS
    """What the column of `results` and the values of `operation` stand for."""

    @property
    def splits(self) -> tuple[str, ...]:
        """All problems, and each operation's."""
        return ("iid", *OPERATIONS)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Both operations, then each alone."""
        return (
            Stage("control", "both operations"),
            Stage("add", "addition only"),
            Stage("mul", "multiplication only"),
        )

    def shape(self) -> Mapping[str, Any]:
        """Return the sizes of input and output: 42 and 20."""
        return {"inputs": 42, "outputs": 20}

    @cached_property
    def _train(self) -> dict[str, Tensor]:
        return problems(self.options.train_size, SEED)

    @cached_property
    def _valid(self) -> dict[str, Tensor]:
        return problems(self.options.valid_size, SEED + 2)

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return operands (N, 2) and operation (N,); one operation's problems in its own stage."""
        return _only(self._train, stage if stage in OPERATIONS else None)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return operands (N, 2) and operation (N,)."""
        return _only(self._valid, None if split == "iid" else split)

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `inputs` (B, 42) float32 one-hot, `target` (B, 2) digits and `operation` (B,)."""
        operands, operation = batch["operands"], batch["operation"]
        table = _ONE_HOT.to(operands.device)
        inputs = torch.cat([table[operands.long()].flatten(1), F.one_hot(operation.long(), 2).float()], 1)  # (B, 42)
        return {"inputs": inputs, "target": split_digits(result(operands, operation)), "operation": operation}

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the mean cross-entropy over the digits."""
        return F.cross_entropy(_digits(net, batch).flatten(0, 1), batch["target"].flatten())

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where both digits are right."""
        right = (_digits(net, batch).argmax(-1) == batch["target"]).all(-1)  # (B,)
        return {"accuracy": right.double()}

    def predict(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the number that the network writes (B,), 0 to 99."""
        ones, tens = _digits(net, batch).argmax(-1).unbind(-1)
        return ones + 10 * tens

    def results(self, batch: dict[str, Any]) -> Tensor:
        """Return what each operation makes of the operands (B, 2), read back from the inputs."""
        digits = batch["inputs"][:, :40].unflatten(-1, (2, 2, 10)).argmax(-1)  # (B, 2 operands, 2 digits)
        operands = digits[..., 0] + 10 * digits[..., 1]  # (B, 2)
        return torch.stack([result(operands, torch.full_like(operands[:, 0], op)) for op in range(2)], -1)

    def decode(self, batch: dict[str, Any]) -> list[str]:
        """Return the problems as text, `17 + 85 = 02`."""
        pairs = zip(
            batch["operands"].tolist(),
            batch["operation"].tolist(),
            result(batch["operands"], batch["operation"]).tolist(),
            strict=True,
        )
        return [f"{a} {'+*'[op]} {b} = {r:02d}" for (a, b), op, r in pairs]


def problems(size: int, seed: int) -> dict[str, Tensor]:
    """Return `operands` (N, 2) and `operation` (N,), uint8: `RandomState(seed)` draws all operands, then all operations."""
    random = np.random.RandomState(seed)
    operands = random.randint(0, 100, (size, 2))
    operation = random.randint(0, 2, (size,))
    return {
        "operands": torch.from_numpy(operands.astype(np.uint8)),
        "operation": torch.from_numpy(operation.astype(np.uint8)),
    }


def result(operands: Tensor, operation: Tensor) -> Tensor:
    """Return `a + b` or `a * b` modulo 100, int64 (...), for operands (..., 2)."""
    a, b = operands.long().unbind(-1)
    return torch.where(operation == 0, a + b, a * b) % 100


def _only(data: dict[str, Tensor], operation: str | None) -> dict[str, Tensor]:
    if operation is None:
        return data
    keep = data["operation"] == OPERATIONS.index(operation)
    return {name: tensor[keep] for name, tensor in data.items()}


def _digits(net: Any, batch: dict[str, Any]) -> Tensor:
    logits: Tensor = net(batch["inputs"])
    return logits.unflatten(-1, (2, 10))  # (B, 2, 10)
