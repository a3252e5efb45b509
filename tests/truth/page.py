"""docs/truth.json, and docs/truth.md and its figure from it."""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from methods import KINDS, METHODS, kind_of

# Helpers of pages lie beside the tests of pages, and are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import page_parts
from page_parts import table

Row = dict[str, Any]
plain = partial(page_parts.plain, digits=5)
"""Numbers as docs/truth.json has them."""
CUT = "cut"
"""The cut that the goals are about."""
GOALS: dict[str, Callable[[Row, Row], bool]] = {
    "accuracy": lambda mask, fit: mask["accuracy"] >= (fit["unmasked"] - 0.01 if "welded" in fit["network"] else 0.99),
    "foreign": lambda mask, fit: (
        mask["of_foreign"] <= 0.05 if "welded" in fit["network"] else mask["foreign"] is None or mask["foreign"] <= 0.05
    ),
    "size": lambda mask, fit: "welded" in fit["network"] or mask["of_necessary"] <= 1.4,
}
"""What a mask must reach: of compiled programs 99 % right, at most 5 % of it foreign, at most 1.4 times the necessary weights; of
welded networks within one point of the part (which is what the unmasked network gives), at most 5 % of the foreign weights."""
GROUPS = {"compiled": ("compiled", "pairs"), "welded": ("welded",)}


def summarised(fits: Sequence[Row], densities: Sequence[Row] = ()) -> dict[str, Any]:
    """Return what the page is made from: for every method, network and function the least, the mean and the most over seeds."""
    rows, places = [], dict.fromkeys((f["method"], f["network"], f["function"]) for f in fits)
    for method, network, function in places:
        same = [f for f in fits if (f["method"], f["network"], f["function"]) == (method, network, function)]
        row: Row = {"method": method, "network": network, "function": function, "seeds": len(same)}
        row |= {name: spread(f.get(name) for f in same) for name in ("unmasked", "area_necessary", "area_owner")}
        row["seconds"] = statistics.median(f["seconds"] for f in same)
        row["weights"] = same[0]["weights"]
        row["masks"] = {}
        for name in (n for n in same[0]["masks"] if all(n in f["masks"] for f in same)):  # a control may have nothing to rank by
            masks = [f["masks"][name] for f in same]
            row["masks"][name] = {metric: spread(m.get(metric) for m in masks) for metric in masks[0]}
            if "of_necessary" in masks[0] and kind_of(network) != "superposed":  # a column has no goal of its own
                reached = {g: sum(met(m, f) for m, f in zip(masks, same, strict=True)) for g, met in GOALS.items()}
                every = sum(all(met(m, f) for met in GOALS.values()) for m, f in zip(masks, same, strict=True))
                row["masks"][name]["reached"] = {**reached, "all": every}
        rows.append(row)
    settings = {name: method.written for name, method in METHODS.items()}
    machine = f"one core of {platform.machine()}, torch {torch.__version__}"
    return {"machine": machine, "settings": settings, "rows": plain(rows), "densities": plain(_densities(densities))}


def _densities(fits: Sequence[Row]) -> list[Row]:
    """Return per sampler the largest deviation from the density that was asked for: of the masks, and of the samples at the end."""
    found = []
    for sampler in dict.fromkeys(f["sampler"] for f in fits):
        own = [f for f in fits if f["sampler"] == sampler]
        held = [abs(f["held"] / f["density"] - 1) for f in own if f["held"] is not None and math.isfinite(f["held"])]
        found.append({
            "sampler": sampler,
            "fits": len(own),
            "asked": sorted({f["density"] for f in own}),
            "masks": max(abs(f["kept"] / f["wanted"] - 1) for f in own),
            "weights": max(abs(f["kept"] - f["wanted"]) for f in own),
            "held": max(held) if held else None,
        })  # fmt: skip
    return found


def spread(values: Iterable[float | None]) -> list[float] | None:
    """Return least, mean and most, or None where there is no number."""
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    return [min(numbers), statistics.fmean(numbers), max(numbers)] if numbers else None


def write(found: dict[str, Any], folder: Path) -> None:
    """Write truth.json, truth.md and truth.png."""
    (folder / "truth.json").write_text(json.dumps(found, indent=None, separators=(",", ":")).replace('{"method"', '\n{"method"') + "\n")
    (folder / "truth.md").write_text(page(found))
    draw(found, folder / "truth.png")


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    text = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    first = next(iter(METHODS))
    return text.format(
        machine=found["machine"],
        first=first,
        settings=table(("method", "setting"), [(f"`{n}`", s) for n, s in found["settings"].items()]),
        goals=_goals(found, first),
        defaults=_each(found, "defaults", ("compiled", "pairs", "welded"), "loss"),
        untrained=_each(found, "integrated_gradients", ("compiled", "pairs", "welded", "noisy", "hidden", "superposed")),
        methods=_methods(found),
        best=_best(found),
        densities=_sizes(found),
        others=_each(found, first, ("noisy", "hidden", "superposed")),
        nothing=_nothing(found),
    )


def of_kinds(found: dict[str, Any], method: str, kinds: Sequence[str]) -> list[Row]:
    """Return a method's rows of some kinds of networks, in the table's order."""
    order = [n for kind in kinds for n in KINDS[kind]]
    rows = [r for r in found["rows"] if r["method"] == method and kind_of(r["network"]) in kinds]
    return sorted(rows, key=lambda r: (order.index(r["network"]), r["function"]))


def _number(value: list[float] | None, at: int = 1, digits: int = 2) -> str:
    return "" if value is None else f"{value[at]:.{digits}f}"


def _percent(value: list[float] | None, at: int = 1) -> str:
    return "" if value is None else f"{100 * value[at]:.1f}"


def _goals(found: dict[str, Any], method: str) -> str:
    return _each(found, method, ("compiled", "pairs", "welded"))


def _each(found: dict[str, Any], method: str, kinds: Sequence[str], mask_of: str = CUT) -> str:
    head = (
        "network", "function", "n", "reached", "area", "kept", "of necessary", "of small", "recall", "foreign %", "of foreign %",
        "accuracy % (least)", "unmasked %", "complement %", "other %", "threshold: accuracy %", "s",
    )  # fmt: skip
    lines = []
    for row in of_kinds(found, method, kinds):
        mask, own = row["masks"][mask_of], row["masks"].get("threshold", {})
        reached = f"{mask['reached']['all']}/{row['seeds']}" if "reached" in mask else ""
        lines.append((
            row["network"], row["function"], str(row["seeds"]), reached, _number(row["area_necessary"], 0, 3), _number(mask["kept"], 1, 0),
            _number(mask.get("of_necessary")), _number(mask.get("of_minimal")), _number(mask.get("recall")), _percent(mask.get("foreign")),
            _percent(mask.get("of_foreign")), _percent(mask["accuracy"], 0), _percent(row["unmasked"]), _percent(mask["complement"]),
            _percent(mask.get("other")), _percent(own.get("accuracy")), f"{row['seconds']:.1f}",
        ))  # fmt: skip
    return table(head, lines)


def _methods(found: dict[str, Any]) -> str:
    head = ["method", "mask"]
    for group in GROUPS:
        last = "of necessary" if group == "compiled" else "of foreign %"
        head += [f"{group}: fits", "reached", "accuracy %", "area", "of small", last]
    lines = []
    for method in METHODS:
        for name, called in (("threshold", "its own"), ("first", "first"), ("loss", "by the loss"), (CUT, "cut")):
            cells = [f"`{method}`", called]
            for group, kinds in GROUPS.items():
                cells += _group([r for r in of_kinds(found, method, kinds) if name in r["masks"]], name, group)
            if any(cells[2:]):
                seconds = [r["seconds"] for r in found["rows"] if r["method"] == method]
                lines.append([*cells, f"{statistics.median(seconds):.1f}"])
    return table([*head, "s"], lines)


def _best(found: dict[str, Any]) -> str:
    """Return per sampler which of its settings reached most, on the functions that all of them were asked for."""
    families: dict[str, list[str]] = {}
    for name, method in METHODS.items():
        families.setdefault(method.family, []).append(name)
    lines = []
    for family, names in families.items():
        rows = {name: {(r["network"], r["function"]): r for r in of_kinds(found, name, ("compiled", "welded"))} for name in names}
        names = [name for name in names if rows[name]]
        common = set.intersection(*(set(rows[name]) for name in names)) if names else set()
        scored = []
        for name in names if common else ():
            masks = [(rows[name][place], rows[name][place]["masks"][CUT]) for place in sorted(common)]
            reached = statistics.fmean(m["reached"]["all"] / r["seeds"] for r, m in masks)
            scored.append((reached, -statistics.fmean(m["of_minimal"][1] for _, m in masks), name))
        if scored:
            reached, size, best = max(scored)
            lines.append((f"`{family}`", ", ".join(f"`{n}`" for n in names), f"`{best}`", f"{100 * reached:.0f} %", f"{-size:.2f}"))
    return table(("sampler", "settings tried", "best", "reached", "of small"), lines)


def _sizes(found: dict[str, Any]) -> str:
    lines = [
        (
            f"`{d['sampler']}`", str(d["fits"]), ", ".join(f"{a:g}" for a in d["asked"]), f"{100 * d['masks']:.2f}", f"{d['weights']:.2f}",
            "" if d["held"] is None else f"{100 * d['held']:.2f}",
        )
        for d in found["densities"]
    ]  # fmt: skip
    return table(("sampler", "fits", "densities", "masks: most off, %", "in weights", "samples at the end: most off, %"), lines)


def _group(rows: list[Row], name: str, group: str) -> list[str]:
    if not rows:
        return [""] * 6
    fits, masks = sum(r["seeds"] for r in rows), [r["masks"][name] for r in rows]
    reached = sum(m["reached"]["all"] for m in masks)
    accuracy = statistics.fmean(m["accuracy"][1] for m in masks)
    area = statistics.fmean(r["area_necessary"][1] for r in rows)
    size = [m["of_necessary" if group == "compiled" else "of_foreign"][1] for m in masks]
    small = statistics.median(m["of_minimal"][1] for m in masks)
    shown = f"{statistics.median(size):.2f}" if group == "compiled" else f"{100 * statistics.fmean(size):.1f}"
    return [str(fits), f"{100 * reached / fits:.0f} %", f"{100 * accuracy:.1f}", f"{area:.3f}", f"{small:.2f}", shown]


def _nothing(found: dict[str, Any]) -> str:
    lines = []
    for network in KINDS["nothing"]:
        for row in (r for r in found["rows"] if r["network"] == network):
            best, own = row["masks"][CUT], row["masks"].get("threshold", {})
            lines.append((
                network, row["function"], f"`{row['method']}`", str(row["seeds"]), _percent(row["unmasked"]), _percent(own.get("accuracy")),
                _percent(own.get("density")), _percent(best["accuracy"]), _percent(best["density"]),
            ))  # fmt: skip
    head = ("network", "function", "method", "n", "unmasked %", "own mask: accuracy %", "kept %", "best cut: accuracy %", "kept %")
    return table(head, lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw, method by method, the size of masks of compiled programs and the foreign weights in those of welded networks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [m for m in METHODS if any(r["method"] == m for r in found["rows"])]
    looks = {
        "cut": {"marker": "o", "color": "C0", "label": "cut by held-out items"},
        "own": {"marker": "o", "markerfacecolor": "none", "color": "C2", "label": "the sampler's own mask, right"},
        "lost": {"marker": "x", "color": "C3", "label": "the sampler's own mask, accuracy lost"},
    }
    for place, method in enumerate(names):
        for axes, group, metric in ((left, "compiled", "of_necessary"), (right, "welded", "of_foreign")):
            for row in of_kinds(found, method, GROUPS[group]):
                for name, shift in ((CUT, -0.17), ("threshold", 0.17)):
                    mask = row["masks"].get(name)
                    if mask is None:
                        continue
                    right_often = mask["reached"]["accuracy"] == row["seeds"]
                    look = looks["cut" if name == CUT else "own" if right_often else "lost"]
                    x = max(mask[metric][1], 0.1) if group == "compiled" else 100 * mask[metric][1]
                    axes.plot([x], [place + shift], linestyle="none", markersize=4, alpha=0.7, **look)
    left.set(xscale="log", xlim=(0.09, 600), title="compiled programs", xlabel="weights kept / necessary weights")
    right.set(xlim=(-3, 103), title="welded networks", xlabel="weights of the other part that are kept (%)")
    left.axvspan(0.09, 1.4, color="0.93", zorder=0)
    right.axvspan(-3, 5, color="0.93", zorder=0)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
