"""Two digits and a question (min or max), read as a sequence of three symbols; the answer is a digit."""

import attrs
import torch
from torch.nn import functional as F

from modhook import Stage, Task


@attrs.frozen
class Options:
    digits: int = 10


class MinMax(Task):
    """Symbols 0..digits-1 are digits; `digits` asks for the smaller, `digits + 1` for the larger."""

    Options = Options

    @property
    def splits(self):
        return ("both", "min", "max")

    @property
    def stages(self):
        return (Stage("control", "both questions"), Stage("min", "the smaller"), Stage("max", "the larger"))

    def shape(self):
        return {"symbols": self.options.digits + 2, "classes": self.options.digits}

    def _all(self, which):
        n = self.options.digits
        a, b, ask = torch.meshgrid(torch.arange(n), torch.arange(n), torch.arange(2), indexing="ij")
        a, b, ask = a.flatten(), b.flatten(), ask.flatten()
        data = {
            "symbols": torch.stack([a, b, ask + n], 1),
            "answer": torch.where(ask == 0, torch.minimum(a, b), torch.maximum(a, b)),
        }
        if which in ("min", "max"):
            keep = ask == ("min", "max").index(which)
            data = {name: tensor[keep] for name, tensor in data.items()}
        return data

    def train_set(self, stage):
        return self._all(stage)

    def test_set(self, split):
        return self._all(split)

    def loss(self, net, batch):
        return F.cross_entropy(net(batch["symbols"]), batch["answer"])

    def score(self, net, batch):
        return {"accuracy": (net(batch["symbols"]).argmax(-1) == batch["answer"]).double()}
