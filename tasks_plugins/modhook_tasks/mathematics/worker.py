"""Generates questions in a process of its own: `python -m modhook_tasks.mathematics.worker`, a job a line, an answer a line.

A job is JSON, `{"set": "train-easy", "area": "calculus", "name": "differentiate", "seed": 1, "count": 200}`; its answer is a
JSON list of [question, answer] pairs. What a job gives depends on nothing but the job, in a process whose PYTHONHASHSEED
is fixed: the package draws from `random` and `numpy.random`, and the order of sets of names decides what it draws next.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from modhook_tasks.mathematics.modules import TRAIN
from modhook_tasks.mathematics.patched import import_fixed

LONGEST_QUESTION, LONGEST_ANSWER = 160, 30
"""Longer ones are drawn again, as in the official data."""


def sampler(found: str, area: str, name: str) -> Callable[[], Any]:
    """Return what draws one problem of a module: the three thirds of the entropy range are easy, medium and hard."""
    import_fixed()
    if name.endswith("_composed"):  # made of questions of all areas, which register themselves when they are imported
        importlib.import_module("mathematics_dataset.modules.modules")
    modules = importlib.import_module(f"mathematics_dataset.modules.{area}")
    if found not in TRAIN:
        made = modules.test() if found == "interpolate" else modules.test_extra()
    else:
        third = TRAIN.index(found)

        def restricted(limits: tuple[float, float]) -> tuple[float, float]:
            low, length = limits[0], limits[1] - limits[0]
            return low + third / 3 * length, low + (third + 1) / 3 * length

        made = modules.train(restricted)
    drawn: Callable[[], Any] = made[name]
    return drawn


def generate(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of one job."""
    draw = sampler(job["set"], job["area"], job["name"])
    _seed(job["seed"])
    pairs: list[tuple[str, str]] = []
    while len(pairs) < job["count"]:
        problem = draw()
        question, answer = str(problem.question), str(problem.answer)
        if len(question) <= LONGEST_QUESTION and len(answer) <= LONGEST_ANSWER:
            pairs.append((question, answer))
    return pairs


def _seed(seed: int) -> None:
    """Forget what earlier jobs left: the state of every random generator, and what sympy remembers."""
    import numpy as np
    import sympy.core.cache
    import sympy.core.random

    random.seed(seed)
    np.random.seed(seed % 2**32)
    sympy.core.random.seed(seed)
    sympy.core.cache.clear_cache()


def main() -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(generate(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
