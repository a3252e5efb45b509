"""Two or more independent additions (or multiplications) modulo 10**digits in one network (reference, section 3).

The sums are the same function on different inputs: does the network use the same weights for all of them?
Stages: control (both sums), tuple1 (the first alone), tuple2 (the second alone), and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import attrs
import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

from modhook import Stage, Task, UserError
from modhook_tasks.digits import Digits, combined, one_hot_digits, other_digits, packed, rewritten, split_digits

SEED = 0x12345678
STEPS = 3
"""Time steps of one tuple in an LSTM."""
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
Mode = Literal["together", "only_one", "only_one_io", "same_output", "same_input", "same_io", "fnn"]


@attrs.frozen
class DoubleAdditionOptions:
    """Options of the task `double_addition`."""

    mode: Mode = "together"
    """How an LSTM sees the tuples in its 2 x 3 steps (3 for each tuple), or `fnn`: one pass per tuple.

    `together`: all input at every step, both sums read at the last; `only_one`: a tuple is shown only in its own 3 steps;
    `only_one_io`: each sum is also read at the end of its tuple's own steps; `same_output`, `same_input`, `same_io`: so too,
    with one output slot, one input slot, or both for the two tuples."""
    copied_io: bool = False
    """Before masking, copy the first layer's columns of tuple 2 over those of tuple 1, and the output's rows (mode `fnn`). With
    more tuples, those of the last one go over those of all others."""
    tuple2_delay: Annotated[int, Ge(0)] = 0
    """In base training the second sum (and all later ones) counts only after so many steps."""
    train_size: Annotated[int, Ge(1)] = 1_000_000
    valid_size: Annotated[int, Ge(1)] = 10_000
    n_digits: Digits = 2
    """Digits of each number, 1 to 9; results are modulo 10**n_digits."""
    tuples: Annotated[int, Ge(2), Le(10)] = 2
    """Independent sums, each with a stage and a split of its own: tuple1, tuple2, ..."""
    terms: Annotated[int, Ge(2), Le(10)] = 2
    """Numbers of one sum (or product)."""
    op: Literal["add", "mul"] = "add"
    """What is done with the numbers of a tuple: their sum or their product."""
    ranges: tuple[tuple[int, int], ...] = ()
    """From which numbers each tuple's are drawn, one [low, high] per tuple, high left out: [[0, 50], [50, 100]]. Empty: all
    numbers of `n_digits` digits, [0, 10**n_digits], for all tuples."""

    def __attrs_post_init__(self) -> None:
        if self.copied_io and self.mode != "fnn":
            raise UserError(f"copied_io needs mode = 'fnn', not {self.mode!r}.")
        if self.ranges and len(self.ranges) != self.tuples:
            raise UserError(
                f"ranges must have one [low, high] for each of the {self.tuples} tuples, not {len(self.ranges)} in all; "
                "leave it out to draw from all numbers."
            )
        limit = 10**self.n_digits
        for number, (low, high) in enumerate(self.ranges, 1):
            if not 0 <= low < high <= limit:
                raise UserError(
                    f"the range of tuple {number} is [{low}, {high}], but numbers of {self.n_digits} digits need "
                    f"0 <= low < high <= {limit} (high itself is left out)."
                )


class DoubleAddition(Task):
    """`(a + b, c + d) mod 100`: one-hot digits, least significant first; a sum is right when all its digits are."""

    Options = DoubleAdditionOptions
    options: DoubleAdditionOptions

    def __init__(self, options: DoubleAdditionOptions) -> None:
        super().__init__(options)
        one_input = options.mode in ("same_input", "same_io")
        one_output = options.mode in ("same_output", "same_io")
        self.tuples = tuple(f"tuple{t + 1}" for t in range(options.tuples))
        self.slot = (10 * options.terms * options.n_digits, 10 * options.n_digits)
        """Width of one tuple's inputs, and of its outputs."""
        self.inputs = self.slot[0] * (1 if one_input else options.tuples)
        self.outputs = self.slot[1] * (1 if one_output else options.tuples)
        self._drawn = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """All sums right; each of them, with all tuples' input."""
        return ("iid", *self.tuples)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Both sums (or all), then each alone."""
        two, made = self.options.tuples == 2, "sum" if self.options.op == "add" else "product"
        rest = "the other tuple's input is zero" if two else "the other tuples' inputs are zero"
        return (
            # The passes of a feed-forward network, one per tuple, draw masks of their own.
            Stage(
                "control",
                f"{'both' if two else 'all'} {made}s",
                draws=self.options.tuples if self.options.mode == "fnn" else 1,
            ),
            *(
                Stage(name, f"the {which} {made} alone; {rest}")
                for name, which in zip(self.tuples, _ORDINALS, strict=False)
            ),
        )

    def shape(self) -> Mapping[str, Any]:
        """Return the sizes of input and output."""
        return {"inputs": self.inputs, "outputs": self.outputs}

    @cached_property
    def _train(self) -> Tensor:
        return self._draw(self.options.train_size, SEED)

    @cached_property
    def _valid(self) -> Tensor:
        return self._draw(self.options.valid_size, SEED + 2)

    def _draw(self, size: int, seed: int) -> Tensor:
        o = self.options
        ranges = o.ranges or ((0, 10**o.n_digits),) * o.tuples
        return drawn(size, seed, ranges, o.terms, o.n_digits)

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """Return `numbers` (N, tuples, terms), and per item which tuples are `shown` and `counted` (N, tuples)."""
        counts = [stage in (None, "control", t) for t in self.tuples]
        if stage is None:
            self._drawn = 0
        return _marked(self._train, counts, counts, delayed=stage is None and self.options.tuple2_delay > 0)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Return `numbers` (N, tuples, terms); all tuples are shown, one or all counted."""
        return _marked(self._valid, [True] * len(self.tuples), [split in ("iid", t) for t in self.tuples])

    def validation_set(self, split: str, stage: str | None) -> dict[str, Tensor] | None:
        """Return, in a stage of one tuple, that tuple alone: the others' inputs are zero and their sums do not count."""
        if stage not in self.tuples:
            return self.test_set(split)
        alone = [t == stage for t in self.tuples]
        return _marked(self._valid, alone, alone) if split in ("iid", stage) else None

    def prepare(self, batch: dict[str, Any], rng: np.random.Generator, training: bool) -> dict[str, Any]:
        """Return `inputs`, `target` (B, tuples, digits) and `counted` (B, tuples).

        Inputs are (B, 3 per tuple, inputs) for an LSTM and (B, tuples, inputs) for the passes of a feed-forward network. In
        training its passes are items of their own, all first ones, then all second ones, only those that count: `inputs`
        (P * B, inputs), `target` (P * B, digits) and `slot` (P * B,), the output slot that is read.
        """
        numbers, counted = batch["numbers"].long(), batch["counted"]
        if training and "delayed" in batch:
            self._drawn += 1
            if self._drawn <= self.options.tuple2_delay:
                first = torch.arange(counted.shape[1], device=counted.device) == 0
                counted = counted & first
        n = self.options.n_digits
        hot = one_hot_digits(numbers, n).flatten(-2) * batch["shown"].unsqueeze(-1)  # (B, tuples, slot)
        inputs, target = self._shown(hot), split_digits(combined(self.options.op, numbers, n), n)
        if "written" in batch:
            target = rewritten(target, batch["written"])
        if not training or self.options.mode != "fnn":
            return {"inputs": inputs, "target": target, "counted": counted}
        passes = counted[0].nonzero().flatten()  # (P,); a training batch counts the same sums in all items
        return {
            "inputs": inputs[:, passes].transpose(0, 1).flatten(0, 1),  # (P * B, inputs)
            "target": target[:, passes].transpose(0, 1).flatten(0, 1),  # (P * B, digits)
            "slot": passes.repeat_interleave(len(numbers)),  # (P * B,)
        }

    def nonsense(self, data: dict[str, Tensor], stage: str, seed: int) -> dict[str, Tensor]:
        """Return the data with `written` (N, 10): each digit of an answer is written as another one."""
        return {**data, "written": other_digits(len(data["numbers"]), stage, seed)}

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches of base training were drawn."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        self._drawn = state["drawn"]

    def _shown(self, hot: Tensor) -> Tensor:
        """Place the tuples' digits (B, tuples, slot) in input slots and time."""
        mode, (size, count, width) = self.options.mode, hot.shape
        if mode == "together":
            return hot.flatten(1).unsqueeze(1).expand(-1, count * STEPS, -1)
        # (B, tuples, inputs): each tuple in its own slot, or all in one
        own = (
            hot
            if self.inputs == width
            else torch.cat([F.pad(hot[:, t : t + 1], (t * width, (count - 1 - t) * width)) for t in range(count)], 1)
        )
        return own if mode == "fnn" else own.unsqueeze(2).expand(-1, -1, STEPS, -1).reshape(size, count * STEPS, -1)

    def _logits(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the digits of all sums (B, tuples, n, 10), each read from its slot at its time."""
        out = net(batch["inputs"])  # (B, 3 or 1 per tuple, outputs)
        count, width = len(self.tuples), self.slot[1]
        if self.options.mode in ("together", "only_one"):
            slots = out[:, -1].unflatten(-1, (count, width))  # (B, tuples, slot)
        else:
            times = out if self.options.mode == "fnn" else out[:, STEPS - 1 :: STEPS]  # (B, tuples, outputs)
            slots = (
                times
                if self.outputs == width
                else torch.stack([times[:, t, t * width : (t + 1) * width] for t in range(count)], 1)
            )
        digits: Tensor = slots.unflatten(-1, (-1, 10))
        return digits

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Return the cross-entropy, a mean over the digits of the sums that count."""
        if "slot" in batch:
            slots = net(batch["inputs"]).unflatten(-1, (len(self.tuples), -1, 10))  # (P * B, tuples, n, 10)
            own = slots.take_along_dim(batch["slot"].view(-1, 1, 1, 1), 1).squeeze(1)  # (P * B, n, 10)
            return F.cross_entropy(own.flatten(0, 1), batch["target"].flatten())
        likelihood = self._logits(net, batch).log_softmax(-1)  # (B, tuples, n, 10)
        chosen = likelihood.gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1).mean(-1)  # (B, tuples)
        counted = batch["counted"].to(chosen.dtype)
        loss: Tensor = -(chosen * counted).sum() / counted.sum()
        return loss

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `accuracy` (B,): 1 where every sum that counts is right in all digits."""
        right = (self._logits(net, batch).argmax(-1) == batch["target"]).all(-1)  # (B, tuples)
        return {"accuracy": (right | ~batch["counted"]).all(-1).double()}

    def edit_network(self, model: nn.Module, stage: str) -> None:
        """With `copied_io`, give every other tuple the input columns and output rows of the last one, in every stage."""
        if not self.options.copied_io:
            return
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        if not linear or linear[0].in_features != self.inputs or linear[-1].out_features != self.outputs:
            raise UserError("task.copied_io needs a network whose first and last layers are linear, such as 'fnn'.")
        with torch.no_grad():
            wide, narrow = self.slot
            for t in range(len(self.tuples) - 1):
                columns, rows = slice(t * wide, (t + 1) * wide), slice(t * narrow, (t + 1) * narrow)
                linear[0].weight[:, columns] = linear[0].weight[:, -wide:]
                linear[-1].weight[rows] = linear[-1].weight[-narrow:]
                linear[-1].bias[rows] = linear[-1].bias[-narrow:]

    def decode(self, batch: dict[str, Any]) -> list[str]:
        """Return the problems as text, `17 + 85 = 02, 3 + 4 = 07`."""
        n, sign = self.options.n_digits, " + " if self.options.op == "add" else " * "
        numbers = batch["numbers"]
        results = combined(self.options.op, numbers, n)
        rows = zip(numbers.tolist(), results.tolist(), strict=True)
        return [
            ", ".join(f"{sign.join(map(str, one))} = {made:0{n}d}" for one, made in zip(*row, strict=True))
            for row in rows
        ]


def drawn(size: int, seed: int, ranges: Sequence[tuple[int, int]], terms: int = 2, digits: int = 2) -> Tensor:
    """Return numbers (N, tuples, terms): `RandomState(seed)` draws all first tuples from their range, then all second ones, ...

    Numbers of one or two digits are uint8, longer ones int32.
    """
    random = np.random.RandomState(seed)
    blocks = [random.randint(low, high, (size, 1, terms)) for low, high in ranges]
    return packed(np.concatenate(blocks, 1), digits)


def _marked(numbers: Tensor, shown: list[bool], counted: list[bool], delayed: bool = False) -> dict[str, Tensor]:
    rows = {"shown": shown, "counted": counted} | ({"delayed": [True] * len(shown)} if delayed else {})
    marks = {n: torch.tensor(r, device="cpu").expand(len(numbers), -1) for n, r in rows.items()}
    return {"numbers": numbers, **marks}
