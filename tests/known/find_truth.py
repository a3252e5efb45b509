"""Find the truth about the known networks by brute force and write what modhook ships; twenty minutes on one core.

python tests/known/find_truth.py            every network
python tests/known/find_truth.py hist ...   these
"""

from __future__ import annotations

import sys
import time

import torch

from modhook_tasks.known import build, networks, stored
from modhook_tasks.known.bruteforce import find


def main(names: list[str]) -> None:
    """Write the truth of each network, seed 0."""
    torch.set_num_threads(1)
    for name in names or networks():
        begun, known = time.time(), build(name)
        if known.truth.owner is None:
            continue
        found = find(known.model, known.functions, known.truth.owner)
        stored.save(name, found)
        counts = [{f: sum(int(m.sum()) for m in by.values()) for f, by in part.items()} for part in found]
        print(f"{name}: necessary {counts[0]}, small {counts[1]}; {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
