"""The result table of the zoo, docs/zoo.md: the same text for the same results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from zoo_harness import Result

HEAD = """\
# The zoo

Every `torch.nn` class that has parameters, recurrent layers in all variants, architecture families of `transformers` built
from tiny configs, and small modules written to be nasty, each run under K = 3 parameter sets and compared with a plain loop
over deep copies with the weights copied in: all outputs, and the gradients of all parameters. Dropout is off. float64 with a
relative error of at most 1e-9; float32 with 1e-3 where an operation has no float64, as noted. `nox -s zoo -- --write` runs
it and writes this file.

The route is `vmap` (one vectorised pass), `islands` (vectorised, the named submodules sample by sample) or `loop` (the whole
module sample by sample). "slow" names operations that vmap itself takes sample by sample, with a warning. Errors are
given as bounds: 1e-12, 1e-9, 1e-5 or 1e-3.
"""


def table(results: Sequence[Result]) -> str:
    """Return the whole page."""
    counts = Counter(result.route for result in results)
    stock = [result for result in results if result.group != "nasty"]
    whole = sum(result.route != "loop" for result in stock)
    matching = sum(result.matches for result in results)
    families = {r.name.split(",")[0] for r in stock if r.group not in ("layer", "recurrent")}
    lines = [
        HEAD,
        f"torch {version('torch').split('+')[0]}, transformers {version('transformers')}, on CPU.\n",
        f"* {matching} of {len(results)} cases match ({_percent(matching, len(results))}); {len(families)} architecture families.",
        f"* {whole} of {len(stock)} cases, the nasty ones aside, run without looping the whole module ({_percent(whole, len(stock))}).",
        "* Routes: " + ", ".join(f"{counts[route]} {route}" for route in ("vmap", "islands", "loop")) + ".",
        f"* {sum(bool(r.slow) for r in results)} cases with a slow operation.",
        "",
    ]
    for group in dict.fromkeys(result.group for result in results):
        lines += [
            f"## {group[0].upper()}{group[1:]}",
            "",
            "| case | mode | route | looped submodules | outputs | gradients | notes |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in sorted((r for r in results if r.group == group), key=lambda r: (r.name, r.mode)):
            notes = [": ".join(filter(None, (r.dtype.replace("float64", ""), r.why)))]
            notes += [f"slow: {', '.join(r.slow)}"] if r.slow else []
            islands = ", ".join(f"`{name}`" for name in r.islands)
            cells = (
                r.name,
                r.mode,
                r.route,
                islands,
                _rounded(r.output_error),
                _rounded(r.gradient_error),
                "; ".join(filter(None, notes)),
            )
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _rounded(error: float) -> str:
    """Return the next of a few bounds: rounding differs between processors, the bound hardly does."""
    return next((f"{bound:.0e}" for bound in (1e-12, 1e-9, 1e-5, 1e-3) if error <= bound), "wrong")
