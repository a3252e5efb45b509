"""Train the parts of the welded networks and the superposed ones, and write what modhook ships; a minute on one core.

python tests/known/train_parts.py           everything
python tests/known/train_parts.py lstm      these kinds of welded parts
"""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import save_file
from torch import nn

from modhook_tasks.known import superposed, welded
from modhook_tasks.known.compiled import FILES
from modhook_tasks.known.structure import accuracy

STEPS, BATCH = 2_000, 256
RATES = {"transformer": 3e-3}


def train(model: nn.Module, batches: object, loss: object, lr: float) -> None:
    """Train with Adam, the rate falling to zero along a cosine."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        schedule.step()


def main(kinds: list[str]) -> None:
    """Train every part from its own seed and write it."""
    torch.set_num_threads(1)
    written = FILES / "parts.json"
    found = json.loads(written.read_text(encoding="utf-8")) if kinds else {}
    for kind in kinds or welded.INPUTS:
        found[kind] = {}
        for number, (name, function) in enumerate(welded.questions(kind).items()):
            torch.manual_seed(number)
            part = welded.empty(kind, 1)
            part.gate.requires_grad_(False)
            passes = STEPS // (len(function.train["target"]) // BATCH)
            train(part, function.batches(number, BATCH, passes), function.loss, RATES.get(kind, 1e-2))
            part.eval()
            found[kind][name] = accuracy(part, function.test)
            print(kind, name, accuracy(part, function.train), found[kind][name], flush=True)
            save_file(part.state_dict(), FILES / f"part_{kind}_{name}.safetensors")
    written.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name in () if kinds else superposed.networks():
        torch.manual_seed(0)
        model = superposed.empty(name)
        train(model, superposed.Everywhere(name), superposed.everywhere_loss, 1e-2)
        print(name, model.weight.norm(dim=0), model.bias)
        save_file(model.state_dict(), FILES / f"{name}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
