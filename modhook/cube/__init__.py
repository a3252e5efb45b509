"""The cube: everything that the runs of a study leave behind, in one zarr store."""

from __future__ import annotations

from modhook.cube.alike import WEIGHT_FILES, exchanged, versions_of
from modhook.cube.creation import create
from modhook.cube.cube import Cube, open_for_writing
from modhook.cube.grow import seal
from modhook.cube.join import Joined, join_packed
from modhook.cube.layout import Layout, layout_variables
from modhook.cube.leftovers import remove_leftovers
from modhook.cube.lock import writer_lock
from modhook.cube.pack import Pack, pack
from modhook.cube.place import Place, Where
from modhook.cube.plan import RUN_VARIABLES, Plan
from modhook.cube.reading import done, logits_from, masks_from, open_cube, weights_from
from modhook.cube.removal import removable
from modhook.cube.run_locks import claim, computing
from modhook.cube.store import keeps_records
from modhook.cube.take import check_layout, check_written, same_stages, take_stages
from modhook.cube.tensors import read_logits, read_masks, read_units, read_weights, write_masks, write_weights
from modhook.cube.where import beside, is_url, place_of, stem

__all__ = [
    "RUN_VARIABLES",
    "WEIGHT_FILES",
    "Cube",
    "Joined",
    "Layout",
    "Pack",
    "Place",
    "Plan",
    "Where",
    "beside",
    "check_layout",
    "check_written",
    "claim",
    "computing",
    "create",
    "done",
    "exchanged",
    "is_url",
    "join_packed",
    "keeps_records",
    "layout_variables",
    "logits_from",
    "masks_from",
    "open_cube",
    "open_for_writing",
    "pack",
    "place_of",
    "read_logits",
    "read_masks",
    "read_units",
    "read_weights",
    "removable",
    "remove_leftovers",
    "same_stages",
    "seal",
    "stem",
    "take_stages",
    "versions_of",
    "weights_from",
    "write_masks",
    "write_weights",
    "writer_lock",
]
