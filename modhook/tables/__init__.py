"""A cube's tables, and how they are written: for a terminal, as Markdown, LaTeX or CSV."""

from __future__ import annotations

from modhook.tables.collect import table_names, tables
from modhook.tables.first import WORDS, first_tables, words
from modhook.tables.markup import latex, markdown
from modhook.tables.records import as_csv
from modhook.tables.table import Cell, Table
from modhook.tables.text import print_tables

__all__ = ["WORDS", "Cell", "Table", "as_csv", "first_tables", "latex", "markdown", "print_tables", "table_names", "tables", "words"]
