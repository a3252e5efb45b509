"""Who uses which hidden channel, and what each direction is without the weights of one, of the other, and of both."""

import numpy as np

from modhook import Analysis, UserError, Variable
from modhook_reversible.automaton import BACKWARD, FORWARD

ROLES = ("forward only", "backward only", "both", "neither")
PARTS = ROLES[:3]


class Directions(Analysis):
    """Channels of the first layer, and scores without parts of the weights."""

    def variables(self, task):
        """Two variables; the task must have both directions."""
        if not {FORWARD, BACKWARD} <= {stage.name for stage in task.stages}:
            raise UserError("directions needs a task with the stages forward and backward, such as reversible.")
        return (
            Variable("directions/channels", ("role",), "float64", "channels of the first layer that these masks read and pass on"),
            Variable(
                "directions/without",
                ("part", "split"),
                "float64",
                "accuracy of the network without the weights that only these masks keep",
                attrs={"table": "percent"},
            ),
        )

    def labels(self, task, stages):
        """Name the roles of channels, and the parts that are taken out."""
        return {"role": list(ROLES), "part": list(PARTS)}

    def compute(self, run):
        """Count channels, and take out what one direction keeps and the other does not, and what both keep."""
        one, other = run.masks[FORWARD], run.masks[BACKWARD]
        used = [channels(*list(masks.values())[:2]) for masks in (one, other)]
        a, b = used
        counts = [(a & ~b).sum(), (b & ~a).sum(), (a & b).sum(), (~a & ~b).sum()]
        scores = []
        for part in (one - other, other - one, one & other):
            found = run.score(~part)["accuracy"]
            scores.append([found[split] for split in run.task.splits])
        return {"directions/channels": np.array(counts, dtype=float), "directions/without": np.array(scores)}


def channels(first, second):
    """Return which channels have a kept weight on either side: (hidden,); of (hidden, channels, 3) and (hidden, hidden, 1)."""
    return (first.flatten(1).any(1) & second.flatten(2).any(2).any(0)).numpy()
