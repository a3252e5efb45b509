"""Addition or multiplication of two numbers modulo 10**digits; the operation is an input (reference, section 3).

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
from modhook_tasks.digits import (
    Digits,
    combined,
    join_digits,
    one_hot_digits,
    other_digits,
    packed,
    rewritten,
    split_digits,
)

SEED = 0x12345678
OPERATIONS = ("add", "mul")


@attrs.frozen
class AddMulOptions:
    """Options of the add/mul task."""

    train_size: Annotated[int, Ge(1)] = 1_000_000
    """Training problems drawn, with both operations together."""
    valid_size: Annotated[int, Ge(1)] = 10_000
    """Problems drawn for the `iid` split; `add` and `mul` are its two parts."""
    n_digits: Digits = 2
    """Digits of each number, 1 to 9: the operands are below 10**n_digits, the result is modulo 10**n_digits. With 2 every problem
    that is measured also occurs in training (with 1,000,000 problems); with 3 or more, most do not."""


class AddMul(Task):
    """`a op b mod 10**n` for numbers of n digits: 20 n + 2 inputs (2 n digits one-hot, the operation), n output digits."""

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
        """Return the sizes of input and output: 42 and 20 for two digits."""
        return {"inputs": 20 * self.options.n_digits + 2, "outputs": 10 * self.options.n_digits}

    @cached_property
    def _train(self) -> dict[str, Tensor]:
        return problems(self.options.train_size, SEED, self.options.n_digits)

    @cached_property
    def _valid(self) -> dict[str, Tensor]:
        return problems(self.options.valid_size, SEED + 2, self.options.n_digits)

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return operands (N, 2) and operation (N,); one operation's problems in its own stage."""
        return _only(self._train, stage if stage in OPERATIONS else None)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return operands (N, 2) and operation (N,)."""
        return _only(self._valid, None if split == "iid" else split)

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `inputs` (B, 20 n + 2) float32 one-hot, `target` (B, n) digits and `operation` (B,)."""
        operands, operation, n = batch["operands"], batch["operation"], self.options.n_digits
        digits = one_hot_digits(operands, n).flatten(1)  # (B, 2 operands * n * 10)
        inputs = torch.cat([digits, F.one_hot(operation.long(), 2).float()], 1)  # (B, 20 n + 2)
        target = split_digits(result(operands, operation, n), n)
        if "written" in batch:
            target = rewritten(target, batch["written"])
        return {"inputs": inputs, "target": target, "operation": operation}

    def nonsense(self, data: dict[str, Tensor], stage: str, seed: int) -> dict[str, Tensor]:
        """Return the data with `written` (N, 10): each digit of an answer is written as another one."""
        return {**data, "written": other_digits(len(data["operation"]), stage, seed)}

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the mean cross-entropy over the digits."""
        return F.cross_entropy(_digits(net, batch).flatten(0, 1), batch["target"].flatten())

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where all digits are right."""
        right = (_digits(net, batch).argmax(-1) == batch["target"]).all(-1)  # (B,)
        return {"accuracy": right.double()}

    def predict(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the number that the network writes (B,), 0 to 99 for two digits."""
        return join_digits(_digits(net, batch).argmax(-1))

    def results(self, batch: dict[str, Any]) -> Tensor:
        """Return what each operation makes of the operands (B, 2), read back from the inputs."""
        n = self.options.n_digits
        operands = join_digits(batch["inputs"][:, : 20 * n].unflatten(-1, (2, n, 10)).argmax(-1))  # (B, 2)
        return torch.stack([combined(operation, operands, n) for operation in OPERATIONS], -1)

    def decode(self, batch: dict[str, Any]) -> list[str]:
        """Return the problems as text, `17 + 85 = 02`."""
        operands, operation, n = batch["operands"], batch["operation"], self.options.n_digits
        rows = zip(operands.tolist(), operation.tolist(), result(operands, operation, n).tolist(), strict=True)
        return [f"{a} {'+*'[op]} {b} = {r:0{n}d}" for (a, b), op, r in rows]


def problems(size: int, seed: int, digits: int = 2) -> dict[str, Tensor]:
    """Return `operands` (N, 2) and `operation` (N,): `RandomState(seed)` draws all operands, then all operations.

    The operation is uint8; so are operands of one or two digits, longer ones are int32.
    """
    random = np.random.RandomState(seed)
    operands = random.randint(0, 10**digits, (size, 2))
    operation = random.randint(0, 2, (size,))
    return {"operands": packed(operands, digits), "operation": packed(operation)}


def result(operands: Tensor, operation: Tensor, digits: int = 2) -> Tensor:
    """Return `a + b` or `a * b` modulo 10**digits, int64 (...), for operands (..., 2)."""
    return torch.where(operation == 0, combined("add", operands, digits), combined("mul", operands, digits))


def _only(data: dict[str, Tensor], operation: str | None) -> dict[str, Tensor]:
    if operation is None:
        return data
    keep = data["operation"] == OPERATIONS.index(operation)
    return {name: tensor[keep] for name, tensor in data.items()}


def _digits(net: Any, batch: dict[str, Any]) -> Tensor:
    logits: Tensor = net(batch["inputs"])
    digits: Tensor = logits.unflatten(-1, (-1, 10))  # (B, n, 10)
    return digits
