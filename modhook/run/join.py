"""Joins cubes of one study whose runs were computed apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from modhook.cube import Cube, Joined, Where, join_packed
from modhook.errors import CubeError, UserError, listing
from modhook.run.recorded import study_table
from modhook.study import difference


def join(cubes: Sequence[Where], out: Path, *, overwrite: bool = False) -> Joined:
    """Pack the runs of several cubes of one study into one file, without weights and logits.

    Each run is taken whole from the cube that has most of its stages done, then most of its analyses, then most begun (a stage that
    failed, with its reason), then from the first. An analysis that only some of the cubes have is pending in the runs of the others.

    Args:
        cubes: their paths or URLs; packed ones too. They may have other numbers of seeds, other analyses and other controls that add
            no stage; everything else must be the same study, computed with the same data.
        out: the file, which ends in `.zip`. It may be one of `cubes` where `overwrite` is true.
        overwrite: whether a file that is there is replaced.

    Raises:
        CubeError: no cube, a damaged one, another study, other data or other code. UserError: fewer than two cubes, no place for a file.
    """
    if len(cubes) < 2:
        raise UserError("there is nothing to join: give two cubes or more; `modhook pack` packs one.")
    opened = [Cube(c, read_only=True) for c in cubes]
    studies = [study_table(cube) for cube in opened]
    # Every pair: of three, two may have an analysis that the third lacks.
    for (one, first), (other, second) in itertools.combinations(zip(opened, studies, strict=True), 2):
        # Either may be the older one, which lacks options that the other has at their defaults.
        ways = (one, other, difference(first, second)), (other, one, difference(second, first))
        there, here, changes = min(ways, key=lambda way: len(way[2]))
        if changes:
            told = listing((_said(c, there.path, here.path) for c in changes), 3)
            raise CubeError(f"{other.path} holds another study than {one.path}: {told}; only cubes of one study can be joined.")
    return join_packed(opened, out, overwrite=overwrite)


def _said(change: str, there: Where, here: Where) -> str:
    """Name both cubes in `masks.beta is 3e-5 there and 1e-4 here`."""
    first, _, second = change.removesuffix(" here").rpartition(" there and ")
    return f"{first} in {there} and {second} in {here}"
