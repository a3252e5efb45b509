"""Tables as Markdown and as LaTeX. Whatever comes from a study, such as a stage's name, is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modhook.tables.table import Table

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "\n": " ",
    }
)


def markdown(tables: Iterable[Table]) -> str:
    """Return the tables as Markdown (pipe tables, as GitHub and pandoc read them)."""
    return "\n".join(_markdown(table) for table in tables)


def latex(tables: Iterable[Table]) -> str:
    """Return the tables as LaTeX tables with booktabs rules, to be put into a document."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(table) for table in tables)


def markdown_text(text: str) -> str:
    """Return a text that Markdown shows as it stands, in a cell too."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", " ".join(text.split()))


def latex_text(text: str) -> str:
    """Return a text that LaTeX sets as it stands."""
    return text.translate(_LATEX)


def _markdown(table: Table) -> str:
    head = [table.corner, *table.heads]
    rows = [[markdown_text(label), *cells] for label, cells in table.rows]
    lines = [
        f"**{markdown_text(table.title)}**" + (f" ({markdown_text(table.note)})" if table.note else ""),
        "",
        _piped(map(markdown_text, head)),
        _piped([":--", *["--:"] * len(table.columns)]),
        *map(_piped, rows),
    ]
    return "\n".join(lines) + "\n"


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(table: Table) -> str:
    def row(label: str, cells: Iterable[str]) -> str:
        return f"    {' & '.join((latex_text(label), *cells))} \\\\"

    caption = latex_text(table.title) + (f" ({latex_text(table.note)})" if table.note else "")
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}.}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"    \toprule",
        *_above(table),
        row(table.corner, map(latex_text, table.columns)),
        r"    \midrule",
        *(row(label, (table.said(cell, r"$\pm$", "--") for cell in cells)) for label, cells in table.lines),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _above(table: Table) -> list[str]:
    """Return the head's first line, and the rules that say which columns each of its labels stands over."""
    if not table.over:
        return []
    labels, rules, at = [], [], 2
    for label, count in table.spans:
        labels.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(label)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    return [f"     & {' & '.join(labels)} \\\\", f"    {' '.join(rules)}"]
