"""Writes docs/reproduction.md and its figures from packed cubes: `nox -s reproduction`.

`--take results/addmul_fnn.zarr` first takes a cube in: copied, analysed where that needs no training, and packed; further runs of a study
join those that are packed already (`modhook join`), so that seeds may be computed apart. The cube itself is only read, so that it
may still be computed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import walk
from cubes_of_studies import Network, networks
from paper_claims import ADDMUL, CLAIMS
from reference_code import read
from reproduction_page import page, unpublished

from modhook.cube import open_cube, pack
from modhook.cube.metadata import CHECKSUM, checksum
from modhook.errors import UserError
from modhook.plotting.settings import ready
from modhook.plugin.manager import plugins
from modhook.report.drawing import applies, draw
from modhook.run.join import join
from modhook.run.later import analyse
from modhook.run.trackers import make_trackers

ROOT = Path(__file__).parents[2]
JOINING = {"random": ("draws=5",), "magnitude": (), "own_removed": ("draws=5",), "trained_on": (), "logit_adjustment": ()}
"""Controls that need no training, with their options."""
FURTHER = {"addmul_overlap": ADDMUL, "kept_weights": ADDMUL}
"""Figures that no claim names, and of which studies."""
LARGEST = 5_000_000
"""Bytes of a cube that goes into the repository."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Take cubes in, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", nargs="+", type=Path, default=[], metavar="CUBE", help="cubes to take in first")
    parser.add_argument(
        "--docs", type=Path, default=ROOT / "docs", help="folder of the page, of the figures, and of cubes/*.zip"
    )
    options = parser.parse_args(arguments)
    for cube in options.take:
        print(take(cube, options.docs / "cubes"), flush=True)
    write(options.docs)


def take(cube: Path, folder: Path) -> str:
    """Copy a cube, compute the controls that need no training, and pack the copy; return what was done.

    Of a run that is packed already and in the cube as well, the cube's counts if as much of it is done.
    """
    with tempfile.TemporaryDirectory() as scratch:
        whole = pack(cube, Path(scratch) / "whole.zip", weights=True, logits=True).path
        copy = Path(scratch) / f"{cube.name.removesuffix('.zip').removesuffix('.zarr')}.zarr"
        with zipfile.ZipFile(whole) as file:
            file.extractall(copy)
        installed = plugins()
        for name, settings in JOINING.items():
            try:
                analyse(copy, name, settings, installed, make_trackers(["progress"], installed, str(copy)))
            except UserError as error:
                print(f"without {name}: {error}", file=sys.stderr)
        without_folder(copy)
        there = folder / f"{copy.stem}.zip"
        made = join([copy, there], there, overwrite=True).pack if there.exists() else pack(copy, there)
    check_size(made.path)
    return f"{made.path}: {made.size / 1e6:.2f} MB, {made.done} of {made.stages} stages done"


def without_folder(cube: Path) -> None:
    """Replace the folder of the data, a path of one machine, in a copy of a cube."""
    file = cube / "zarr.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    task = document["attributes"]["study"]["task"]
    if task.get("folder"):
        task["folder"] = "FOLDER"
        document["attributes"][CHECKSUM] = checksum(document)
        file.write_text(json.dumps(document), encoding="utf-8")


def check_size(packed: Path) -> None:
    """Delete a packed cube that is too large for the repository, and say so."""
    size = packed.stat().st_size
    if size > LARGEST:
        packed.unlink()
        raise SystemExit(
            f"{packed} takes {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}: it is not for the repository"
        )


def write(docs: Path) -> None:
    """Write the page and its figures."""
    found = networks(sorted((docs / "cubes").glob("*.zip")))
    for study in unpublished(found):
        print(f"no claim is about the study {study}", file=sys.stderr)
    ready()
    installed, chosen = plugins(), figures(found)
    for path, name in chosen:
        with open_cube(path) as tree:
            draw(installed.load("figures", name)(), [tree], docs / "cubes", f"{path.stem}-{name}", ["png"])
    docs.mkdir(exist_ok=True)
    text = page(found, captions(chosen), read())
    (docs / "reproduction.md").write_text(text, encoding="utf-8")
    if any(n.path == docs / walk.CUBE for n in found):
        if importlib.util.find_spec("nbclient") is None:
            print('the notebook is not written: pip install -e ".[docs]" first', file=sys.stderr)
        else:
            walk.write(docs / walk.NAME)


def figures(found: Sequence[Network]) -> list[tuple[Path, str]]:
    """Return the cubes, and the figures that claims name and that can be drawn from them."""
    installed, made = plugins(), []
    for name in dict.fromkeys([*(c.figure for c in CLAIMS), *FURTHER]):
        studies = {*FURTHER.get(name, ()), *(s for c in CLAIMS if c.figure == name for s in c.studies)}
        figure = installed.load("figures", name)()
        cubes = dict.fromkeys(n.path for n in found if n.study in studies)
        made += [(path, name) for path in cubes if applies(figure, [next(n.cube for n in found if n.path == path)])]
    return made


def captions(chosen: Sequence[tuple[Path, str]]) -> list[tuple[str, str]]:
    """Return (file beside the page, what drew it)."""
    return [(f"cubes/{p.stem}-{n}.png", f"`modhook plot docs/cubes/{p.name} --figure {n}`") for p, n in chosen]


if __name__ == "__main__":
    main()
