"""Runs notebooks in a kernel of their own, as a reader would: `python tests/docs/execute_notebooks.py studies/notebooks/*.ipynb`.

The files are not changed. A cell that raises ends it with exit code 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MOST_SECONDS = 300


def main(paths: list[str]) -> None:
    """Execute every notebook in its folder, and say how long it took."""
    for path in map(Path, paths):
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=MOST_SECONDS, resources={"metadata": {"path": str(path.parent)}}).execute()
        print(f"{path}: {time.monotonic() - started:.0f} s", flush=True)
        if "--show" in sys.argv:
            for cell in notebook.cells:
                for output in cell.get("outputs", []):
                    print(output.get("text") or output.get("data", {}).get("text/plain", ""))


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--show"])
