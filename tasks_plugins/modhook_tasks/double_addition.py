"""Two independent additions of two-digit numbers modulo 100 in one network (reference, section 3).

The two sums are the same function on different inputs: does the network use the same weights for both?
Stages: control (both sums), tuple1 (the first alone), tuple2 (the second alone).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import attrs
import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from modhook import Stage, Task, UserError
from modhook_tasks.digits import one_hot_digits, split_digits

SEED = 0x12345678
TUPLES = ("tuple1", "tuple2")
STEPS = 3
"""Time steps of one tuple in an LSTM."""
Mode = Literal["together", "only_one", "only_one_io", "same_output", "same_input", "same_io", "fnn"]


@attrs.frozen
class DoubleAdditionOptions:
    """Options of the task `double_addition`."""

    mode: Mode = "together"
    """How an LSTM sees the tuples in its 2 x 3 steps, or `fnn`: one pass per tuple.

    `together`: all input at every step, both sums read at the last; `only_one`: a tuple is shown only in its own 3 steps;
    `only_one_io`: each sum is also read at the end of its tuple's own steps; `same_output`, `same_input`, `same_io`: so too,
    with one output slot, one input slot, or both for the two tuples."""
    copied_io: bool = False
    """Before masking, copy the first layer's columns of tuple 2 over those of tuple 1, and the output's rows (mode `fnn`)."""
    tuple2_delay: Annotated[int, Ge(0)] = 0
    """In base training the second sum counts only after so many steps."""
    train_size: Annotated[int, Ge(1)] = 1_000_000
    valid_size: Annotated[int, Ge(1)] = 10_000

    def __attrs_post_init__(self) -> None:
        if self.copied_io and self.mode != "fnn":
            raise UserError(f"copied_io needs mode = 'fnn', not {self.mode!r}.")


class DoubleAddition(Task):
    """`(a + b, c + d) mod 100`: one-hot digits, least significant first; a sum is right when both its digits are."""

    Options = DoubleAdditionOptions
    options: DoubleAdditionOptions

    def __init__(self, options: DoubleAdditionOptions) -> None:
        super().__init__(options)
        one_input = options.mode in ("same_input", "same_io")
        one_output = options.mode in ("same_output", "same_io")
        self.inputs, self.outputs = 40 if one_input else 80, 20 if one_output else 40
        self._drawn = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """Both sums right; each of the two, with both tuples' input."""
        return ("iid", *TUPLES)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Both sums, then each alone."""
        return (
            # The two passes of a feed-forward network draw masks of their own.
            Stage("control", "both sums", draws=2 if self.options.mode == "fnn" else 1),
            Stage("tuple1", "the first sum alone; the other tuple's input is zero"),
            Stage("tuple2", "the second sum alone; the other tuple's input is zero"),
        )

    def shape(self) -> Mapping[str, Any]:
        """Return the sizes of input and output."""
        return {"inputs": self.inputs, "outputs": self.outputs}

    @cached_property
    def _train(self) -> Tensor:
        return pairs(self.options.train_size, SEED)

    @cached_property
    def _valid(self) -> Tensor:
        return pairs(self.options.valid_size, SEED + 2)

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return `numbers` (N, 2 tuples, 2), and per item which tuples are `shown` and `counted` (N, 2)."""
        counts = [stage in (None, "control", t) for t in TUPLES]
        if stage is None:
            self._drawn = 0
        return _marked(self._train, counts, counts, delayed=stage is None and self.options.tuple2_delay > 0)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return `numbers` (N, 2, 2); all tuples are shown, one or both counted."""
        return _marked(self._valid, [True, True], [split in ("iid", t) for t in TUPLES])

    def validation_set(self, split: str, stage: str | None) -> dict[str, Tensor] | None:
        """Return, in a stage of one tuple, that tuple alone: the other's input is zero and its sum does not count."""
        if stage not in TUPLES:
            return self.test_set(split)
        alone = [t == stage for t in TUPLES]
        return _marked(self._valid, alone, alone) if split in ("iid", stage) else None

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `inputs`, `target` (B, 2, 2 digits) and `counted` (B, 2).

        Inputs are (B, 6, inputs) for an LSTM and (B, 2, 80) for the two passes of a feed-forward network. In training its
        passes are items of their own, all first ones, then all second ones, only those that count: `inputs` (P * B, 80),
        `target` (P * B, 2 digits) and `slot` (P * B,), the output slot that is read.
        """
        numbers, counted = batch["numbers"].long(), batch["counted"]
        if training and "delayed" in batch:
            self._drawn += 1
            if self._drawn <= self.options.tuple2_delay:
                counted = counted & torch.tensor([True, False], device=counted.device)
        hot = one_hot_digits(numbers).flatten(-2) * batch["shown"].unsqueeze(-1)  # (B, 2, 40)
        inputs, target = self._shown(hot), split_digits(numbers.sum(-1) % 100)
        if not training or self.options.mode != "fnn":
            return {"inputs": inputs, "target": target, "counted": counted}
        passes = counted[0].nonzero().flatten()  # (P,); a training batch counts the same sums in all items
        return {
            "inputs": inputs[:, passes].transpose(0, 1).flatten(0, 1),  # (P * B, 80)
            "target": target[:, passes].transpose(0, 1).flatten(0, 1),  # (P * B, 2)
            "slot": passes.repeat_interleave(len(numbers)),  # (P * B,)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches of base training were drawn."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self._drawn = state["drawn"]

    def _shown(self, hot: Tensor) -> Tensor:
        """Place the tuples' digits (B, 2, 40) in input slots and time."""
        mode, size = self.options.mode, len(hot)
        if mode == "together":
            return hot.flatten(1).unsqueeze(1).expand(-1, 2 * STEPS, -1)
        own = (
            hot if self.inputs == 40 else torch.cat([F.pad(hot[:, :1], (0, 40)), F.pad(hot[:, 1:], (40, 0))], 1)
        )  # (B, 2, inputs): each tuple in its own slot, or both in one
        return own if mode == "fnn" else own.unsqueeze(2).expand(-1, -1, STEPS, -1).reshape(size, 2 * STEPS, -1)

    def _logits(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the digits of both sums (B, 2, 2, 10), each read from its slot at its time."""
        out = net(batch["inputs"])  # (B, 6 or 2, outputs)
        if self.options.mode in ("together", "only_one"):
            slots = out[:, -1].unflatten(-1, (2, 20))  # (B, 2, 20)
        else:
            times = out if self.options.mode == "fnn" else out[:, STEPS - 1 :: STEPS]  # (B, 2, outputs)
            slots = times if self.outputs == 20 else torch.stack([times[:, 0, :20], times[:, 1, 20:]], 1)
        return slots.unflatten(-1, (2, 10))

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the cross-entropy, a mean over the digits of the sums that count."""
        if "slot" in batch:
            slots = net(batch["inputs"]).unflatten(-1, (2, 2, 10))  # (P * B, 2, 2, 10)
            own = slots.take_along_dim(batch["slot"].view(-1, 1, 1, 1), 1).squeeze(1)  # (P * B, 2, 10)
            return F.cross_entropy(own.flatten(0, 1), batch["target"].flatten())
        likelihood = self._logits(net, batch).log_softmax(-1)  # (B, 2, 2, 10)
        chosen = likelihood.gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1).mean(-1)  # (B, 2)
        counted = batch["counted"].to(chosen.dtype)
        loss: Tensor = -(chosen * counted).sum() / counted.sum()
        return loss

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where every sum that counts is right in both digits."""
        right = (self._logits(net, batch).argmax(-1) == batch["target"]).all(-1)  # (B, 2)
        return {"accuracy": (right | ~batch["counted"]).all(-1).double()}

    def edit_network(self, model: nn.Module, stage: str) -> None:
        """With `copied_io`, give tuple 1 the input columns and output rows of tuple 2, in every stage."""
        if not self.options.copied_io:
            return
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        if not linear or linear[0].in_features != 80 or linear[-1].out_features != 40:
            raise UserError("task.copied_io needs a network whose first and last layers are linear, such as 'fnn'.")
        with torch.no_grad():
            linear[0].weight[:, :40] = linear[0].weight[:, 40:]
            linear[-1].weight[:20] = linear[-1].weight[20:]
            linear[-1].bias[:20] = linear[-1].bias[20:]

    def decode(self, batch: dict[str, Any]) -> list[str]:
        """Return the problems as text, `17 + 85 = 02, 3 + 4 = 07`."""
        return [", ".join(f"{a} + {b} = {(a + b) % 100:02d}" for a, b in two) for two in batch["numbers"].tolist()]


def pairs(size: int, seed: int) -> Tensor:
    """Return numbers (N, 2 tuples, 2), uint8: `RandomState(seed)` draws all first tuples, then all second ones."""
    random = np.random.RandomState(seed)
    blocks = [random.randint(0, 100, (size, 1, 2)) for _ in TUPLES]
    return torch.from_numpy(np.concatenate(blocks, 1).astype(np.uint8))


def _marked(numbers: Tensor, shown: list[bool], counted: list[bool], delayed: bool = False) -> dict[str, Tensor]:
    rows = {"shown": shown, "counted": counted} | ({"delayed": [True, True]} if delayed else {})
    marks = {n: torch.tensor(r, device="cpu").expand(len(numbers), -1) for n, r in rows.items()}
    return {"numbers": numbers, **marks}
