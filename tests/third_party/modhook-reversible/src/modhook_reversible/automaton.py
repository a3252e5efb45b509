"""Two states in a row of a second-order automaton, and a question: the next state, or the one before?"""

from typing import Annotated

import attrs
import torch
from annotated_types import Ge, Le
from torch.nn import functional as F

from modhook import Stage, Task

FORWARD, BACKWARD = "forward", "backward"


@attrs.frozen
class Options:
    """What a study may set under `[task]`."""

    rule: Annotated[int, Ge(0), Le(255)] = 30
    """Wolfram's number of the rule f over three neighbours."""
    cells: Annotated[int, Ge(3)] = 12
    examples: Annotated[int, Ge(8)] = 600
    """Pairs of states to train on; a third as many to test on."""


def stepped(rule, middle, outer):
    """Return f(middle) xor outer on a ring: states are (N, cells) of 0 and 1."""
    pattern = 4 * middle.roll(1, -1) + 2 * middle + middle.roll(-1, -1)  # (N, cells), 0 to 7
    return ((rule >> pattern) & 1) ^ outer


class Reversible(Task):
    """`states` (N, 4, cells): early, late, and which question is asked (two channels); `answer` (N, cells)."""

    Options = Options
    splits = ("both", FORWARD, BACKWARD)
    stages = (
        Stage("control", "both directions"),
        Stage(FORWARD, "the state after the late one"),
        Stage(BACKWARD, "the state before the early one"),
    )

    def shape(self):
        """Channels in, classes out."""
        return {"channels": 4, "classes": 2}

    def train_set(self, stage):
        """Return pairs of states with the questions of a stage."""
        return self._asked(stage, self.options.examples, seed=0)

    def test_set(self, split):
        """Return other pairs."""
        return self._asked(split, max(1, self.options.examples // 3), seed=1)

    def loss(self, net, batch):
        """Return the cross-entropy over cells."""
        return F.cross_entropy(net(batch["states"]), batch["answer"])

    def score(self, net, batch):
        """Return the share of each item's cells that are right."""
        return {"accuracy": (net(batch["states"]).argmax(1) == batch["answer"]).double().mean(1)}

    def decode(self, batch):
        """Return states and answer as text."""
        rows = torch.cat([batch["states"][:, :2].long(), batch["answer"].unsqueeze(1)], 1)
        return [" ".join("".join(".#"[c] for c in row) for row in item) for item in rows.tolist()]

    def _asked(self, which, count, seed):
        generator = torch.Generator().manual_seed(seed)
        early, late = torch.randint(2, (2, count, self.options.cells), generator=generator)
        parts = []
        for number, (direction, middle, outer) in enumerate(((FORWARD, late, early), (BACKWARD, early, late))):
            if which in (FORWARD, BACKWARD) and which != direction:
                continue
            asked = F.one_hot(torch.tensor(number), 2).view(1, 2, 1).expand(count, 2, self.options.cells)
            states = torch.cat([early.unsqueeze(1), late.unsqueeze(1), asked], 1).float()  # (N, 4, cells)
            parts.append((states, stepped(self.options.rule, middle, outer)))
        states, answer = (torch.cat(column) for column in zip(*parts, strict=True))
        return {"states": states, "answer": answer}
