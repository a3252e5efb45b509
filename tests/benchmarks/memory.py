"""What steps hold of memory: the resident memory of a process of its own above its imports, in units of the weights' (docs/scale.md).

python tests/benchmarks/memory.py                       every row, on the GPT-2 of the page
python tests/benchmarks/memory.py --width 1024 --layers 12
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = ("pass", "adam", "mask", "memory", "vmap")
"""A plain pass forward and backward, a step of Adam, and mask steps: as `auto` has it, under `memory=`, all samples at once."""


def _status(key: str) -> int:
    """Return a number of /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def _peak(step: Callable[[], Any], base: int) -> int:
    """Return the most resident memory during a step, above `base`."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return _status("VmHWM") - base


def _measured(row: str, width: int, layers: int, tokens: int, samples: int) -> dict[str, float]:
    """Return the peaks of the first and of later steps over the bytes of the weights."""
    import torch
    import transformers

    import modhook_plugins.samplers.gumbel as gumbel
    from modhook.fit.engine import MaskTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64, n_positions=32, use_cache=False)
    sampler = gumbel.Gumbel(gumbel.GumbelOptions())

    def loss(net: Any, batch: Any) -> torch.Tensor:
        return net(input_ids=batch, labels=batch).loss

    def made(config: Any) -> tuple[Any, Any]:
        return transformers.GPT2LMHeadModel(config).eval(), torch.randint(0, config.vocab_size, (4, tokens))

    def stepping(net: Any, batch: Any) -> Callable[[], Any]:
        if row in ("pass", "adam"):
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

            def plain() -> None:
                optimizer.zero_grad()
                loss(net, batch).backward()
                if row == "adam":
                    optimizer.step()

            return plain
        weights = sum(p.numel() for p in net.parameters())
        logits = {n: torch.full_like(p, 2.0, requires_grad=False) for n, p in net.named_parameters()}
        trainer = MaskTrainer(
            net, loss, logits, sampler, samples=samples, lr=1e-2, beta=1e-4,
            executor="vmap" if row == "vmap" else "auto", memory=12 * weights + 1 if row == "memory" else None,
        )  # fmt: skip
        number = iter(range(10**9))

        def masked() -> None:
            with trainer.holding():
                trainer.step(next(number), batch)

        masked.trainer = trainer  # type: ignore[attr-defined]
        return masked

    warm = stepping(*made(small))
    warm()
    warm()
    del warm
    gc.collect()
    base = _status("VmRSS")
    config = transformers.GPT2Config(
        n_layer=layers, n_embd=width, n_head=width // 64, vocab_size=8 * width, n_positions=128, use_cache=False
    )
    net, batch = made(config)
    size = sum(p.numel() * p.element_size() for p in net.parameters())
    step = stepping(net, batch)
    first = _peak(step, base)
    later = max(_peak(step, base) for _ in range(3))
    trainer = getattr(step, "trainer", None)
    route = trainer.route()["route"] if trainer is not None else ""
    return {"first": first / size, "later": later / size, "weights": size // 4, "route": route}


def main() -> None:
    """Measure every row in a process of its own, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    for name, default in (("width", 512), ("layers", 6), ("tokens", 32), ("samples", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(_measured(given.row, given.width, given.layers, given.tokens, given.samples)))
        return
    for row in given.rows:
        sizes = [f"--{n}={getattr(given, n)}" for n in ("width", "layers", "tokens", "samples")]
        ran = subprocess.run([sys.executable, __file__, "--row", row, *sizes], capture_output=True, text=True, check=False)
        if ran.returncode:
            print(row, ran.stderr[-600:], flush=True)
            continue
        found = json.loads(ran.stdout.splitlines()[-1])
        peaks = f"later {found['later']:5.1f}  first {found['first']:5.1f}"
        print(f"{row:8} {peaks}  {found['route']}  {found['weights']:,} weights", flush=True)


if __name__ == "__main__":
    main()
