"""What `inspect` found, for people: as text and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modhook.values import markup

if TYPE_CHECKING:
    from modhook.stacked.report import Report

_PARAMETERS = ("parameter", "shape", "dtype", "", "tied with")
_MODULES = ("submodule", "type", "runs by", "")


def headline(report: Report) -> str:
    """Return what counts on one line."""
    worst = max(report.errors.values(), default=report.error)
    maskable = sum(p.maskable for p in report.parameters)
    return (
        f"{_weights(report):,} maskable weights in {maskable} parameters, K = {report.samples}, route {report.route}, "
        f"largest difference {worst:.1e}"
    )


def text(report: Report, rows: int | None) -> str:
    """Return the report line by line; of parameters and submodules at most `rows` each."""
    parameters, modules = _rows(report)
    return "\n".join(
        [
            *(f"{name}: {value}" if name else value for name, value in _facts(report)),
            "",
            *_table(_PARAMETERS, parameters, rows),
            "",
            *_table(_MODULES, modules, rows),
        ]
    )


def page(report: Report, rows: int) -> str:
    """Return what a notebook shows; of parameters and submodules at most `rows` each."""
    tables = [
        markup.table(head, lines[:rows], _more(len(lines), rows))
        for head, lines in zip((_PARAMETERS, _MODULES), _rows(report), strict=True)
    ]
    facts = markup.table(("inspect", ""), [(name or "weights", value) for name, value in _facts(report)])
    return markup.box(facts, *tables)


def _weights(report: Report) -> int:
    return sum(p.count for p in report.parameters if p.maskable)


def _facts(report: Report) -> list[tuple[str, str]]:
    times = ", ".join(f"{name} {value:.1f} ms" for name, value in report.milliseconds.items())
    sizes = ", ".join(f"{name} {value / 2**20:.1f} MiB" for name, value in report.bytes.items())
    maskable = sum(p.maskable for p in report.parameters)
    return [
        ("route", f"{report.route} ({report.reason}); fit_masks takes it too, unless its loss rules it out"),
        ("", f"{_weights(report):,} maskable weights in {maskable} parameters; K = {report.samples}"),
        ("a forward and a backward pass", times),
        ("memory", sizes),
        ("largest difference from a plain run", ", ".join(f"{n} {e:.1e}" for n, e in report.errors.items())),
    ]


def _rows(report: Report) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the lines of both tables."""
    parameters = [
        (p.name, "x".join(map(str, p.shape)), p.dtype, "" if p.maskable else "not maskable", ", ".join(p.tied))
        for p in report.parameters
    ]
    modules = [(m.name or "(the model)", m.type, m.how, m.detail) for m in report.submodules]
    return list(parameters), list(modules)


def _more(count: int, rows: int | None) -> str:
    left = count - rows if rows is not None else 0
    return f"and {left:,} more: report.text() and report.to_dict() have all" if left > 0 else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], most: int | None) -> list[str]:
    shown = [head, *rows[:most]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return [*lines, *filter(None, [_more(len(rows), most)])]
