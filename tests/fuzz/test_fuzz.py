"""Damaged files: an error of modhook's own, or what the file meant; never another error, never a changed result.

`nox -s fuzz` runs 5,000 mask files, checkpoints and study files each, and 3,000 cubes, and prints what became of them; the
default suite runs a fiftieth. A cube has one file damaged at a time, and all of it is read.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from modhook import Masks
from modhook.cube import (
    Cube,
    Plan,
    create,
    layout_variables,
    logits_from,
    masks_from,
    open_cube,
    pack,
    weights_from,
    write_masks,
    write_weights,
)
from modhook.errors import CheckpointError, CubeError, MaskError, ModhookError, StudyError
from modhook.plugin.variables import Variable
from modhook.steps.snapshot import read_snapshot, write_snapshot
from modhook.study import Study, load

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
COUNT = int(os.environ.get("MODHOOK_FUZZ", "100"))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with bits flipped, cut off, or a piece removed, doubled or replaced by noise."""
    broken = bytearray(data)
    at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 1, 1, 2, 8))):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        case 1:
            del broken[at:]
        case 2:
            del broken[at : min(other, at + 40)]
        case 3:
            broken[at:at] = broken[at : min(other, at + 40)]
        case _:
            broken[at : at + 4] = rng.randbytes(4)
    return bytes(broken)


def _try(
    action: Callable[[], Any], refusal: type[ModhookError], same: Callable[[Any], bool], counts: Counter[str]
) -> None:
    """Count what becomes of one input; fail for another error than `refusal`, or for a result that is not `same`."""
    try:
        result = action()
    except refusal:
        counts["refused"] += 1
        return
    assert same(result), "a damaged file was accepted with another meaning"
    counts["same"] += 1


def test_masks(tmp_path: Path) -> None:
    """A damaged mask file is refused, or gives the very same masks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    masks = Masks({n: torch.rand_like(p) > 0.5 for n, p in model.named_parameters()}, model)
    masks.save(tmp_path / "good.safetensors")
    good, file = (tmp_path / "good.safetensors").read_bytes(), tmp_path / "bad.safetensors"
    counts: Counter[str] = Counter()
    rng = random.Random(1)
    for _ in range(COUNT):
        file.write_bytes(damaged(good, rng))
        _try(lambda: Masks.load(file), MaskError, lambda m: m == masks and m.fingerprint == masks.fingerprint, counts)
    print(f"mask files: {dict(counts)}")
    assert counts["refused"] > COUNT / 2


def test_checkpoints(tmp_path: Path) -> None:
    """A damaged checkpoint is refused, or holds the very same state."""
    state = {"model": {"w": torch.arange(30.0)}, "lr": 1e-2, "betas": (0.9, 0.999), "rows": [{"step": 1}], 7: "seven"}
    write_snapshot(tmp_path / "good", state)
    good, file = (tmp_path / "good").read_bytes(), tmp_path / "bad"
    counts: Counter[str] = Counter()
    rng = random.Random(3)

    def same(found: Any) -> bool:
        return torch.equal(found["model"].pop("w"), state["model"]["w"]) and found == {**state, "model": {}}  # type: ignore[index]

    for _ in range(COUNT):
        file.write_bytes(damaged(good, rng))
        _try(lambda: read_snapshot(file), CheckpointError, same, counts)
    print(f"checkpoints: {dict(counts)}")
    assert counts["refused"] > COUNT / 2


def test_studies(tmp_path: Path) -> None:
    """A damaged study file is refused with its mistakes, or is a study in order: checked again it gives the same one."""
    file = tmp_path / "study.toml"
    counts: Counter[str] = Counter()
    rng = random.Random(2)
    for i in range(COUNT):
        file.write_bytes(damaged(STUDIES[i % len(STUDIES)].read_bytes(), rng))

        def sound(study: Study) -> bool:
            assert 1 <= study.study.seeds <= 10_000
            return attrs.evolve(study) == load(file)

        _try(lambda: load(file), StudyError, sound, counts)
    print(f"study files: {dict(counts)}")
    assert set(counts) == {"refused", "same"}


def test_every_single_bit_of_a_mask_file(tmp_path: Path) -> None:
    """A single flipped bit never changes masks unnoticed, wherever in the file it is: all of them are tried."""
    masks = Masks({"weight": torch.tensor([True, False, True])})
    file = tmp_path / "m.safetensors"
    masks.save(file)
    good = file.read_bytes()
    refused = 0
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            assert Masks.load(file) == masks
        except MaskError:
            refused += 1
    assert refused > 7 * len(good)


RUN = {"seed": 2}


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """A cube with scores, counts, text, masks, logits, weights and an integer buffer of two seeds."""
    layout = layout_variables("layout0", {"w": ((3, 5), "float32"), "seen": ((), "int64")}, ["w"], ["add"])
    plan = Plan(
        attrs={"study": {"name": "small", "masks": {"beta": 1e-4, "exclude": ["*bias*"]}}},
        run_dims={"seed": [1, 2]},
        variables=(
            Variable("scores/accuracy", ("stage", "split"), "float64", "share of right answers"),
            Variable("overlap/kept", ("stage",), "int64", "kept weights"),
            *layout.variables,
        ),
        labels={
            "scores": {"stage": ["unmasked", "add"], "split": ["iid", "add"]},
            "overlap": {"stage": ["add"]},
            **layout.labels,
        },
        sizes=layout.sizes,
    )
    made = create(tmp_path_factory.mktemp("fuzz") / "a.zarr", plan)
    for seed in (1, 2):
        run, generator = {"seed": seed}, torch.Generator().manual_seed(seed)
        write_weights(made, "layout0", run, {"w": torch.randn(3, 5, generator=generator), "seen": torch.tensor(seed)})
        write_masks(made, "layout0", run, "add", {"w": torch.randn(3, 5, generator=generator)})
        made.write("overlap/kept", 7 + seed, run, stage="add")
        made.write("scores/accuracy", np.arange(4.0).reshape(2, 2) / seed, run)
        for stage in ("unmasked", "add"):
            made.write("timing/seconds", 1.5, run, stage=stage)
            made.set_status(run, stage, "done", route="vmap", threads=2)
    return made


def everything(path: Path) -> dict[str, Any]:
    """Return all that the readers say about a cube, as plain comparable values."""
    with open_cube(path) as tree:
        found: dict[str, Any] = {f"attributes of {n.path}": dict(n.attrs) for n in tree.subtree}
        for node in tree.subtree:
            for name, variable in node.to_dataset(inherit=False).variables.items():
                values = variable.values
                plain = values.tolist() if values.dtype == object else values.tobytes()
                found[f"{node.path}/{name}"] = (variable.dims, values.shape, str(values.dtype), variable.attrs, plain)
    opened = Cube(path, read_only=True)
    found["accuracy"] = opened.read("scores/accuracy", RUN).tolist()
    found["kept"] = opened.read("overlap/kept", RUN, stage="add").tolist()
    found["masks"] = masks_from(opened, 2, "add")["w"].tolist()
    found["logits"] = logits_from(opened, 2, "add")["w"].tolist()
    found["weights"] = {n: t.tolist() for n, t in weights_from(opened, 2).items()}
    return found


def test_cubes(cube: Cube) -> None:
    """A damaged cube is refused with one sentence, or every value, label and attribute read from it is as written."""
    path = Path(cube.path)
    files = sorted(f for f in path.rglob("*") if f.is_file())
    kinds = {
        "root": [path / "zarr.json"],
        "metadata of a node": [f for f in files if f.name == "zarr.json" and f.parent != path],
        "values": [f for f in files if f.name != "zarr.json"],
    }
    expected = everything(path)
    assert len(expected) > 35
    rng = random.Random(3)
    counts: Counter[str] = Counter()
    for _ in range(COUNT * 3 // 5):
        kind = rng.choices(list(kinds), (3, 1, 4))[0]
        file = rng.choice(kinds[kind])
        good = file.read_bytes()
        bad = damaged(good, rng)
        file.write_bytes(bad)
        try:
            assert everything(path) == expected, f"{file} was damaged, and another value was accepted"
            counts[f"{kind}: {'unchanged' if bad == good else 'same'}"] += 1
        except CubeError as error:
            counts[f"{kind}: refused" if "\n" not in str(error) else "in many lines"] += 1
        finally:
            file.write_bytes(good)
    print(f"cubes: {dict(sorted(counts.items()))}")
    assert counts["in many lines"] == 0
    assert counts["root: refused"] > 0
    assert counts["values: refused"] > 0
    assert counts["metadata of a node: refused"] == 0  # readers use the checked copies in the root
    assert everything(path) == expected


def test_packed_cubes(cube: Cube, tmp_path: Path) -> None:
    """A damaged pack is refused with one sentence, or everything read from it is as written."""
    path = pack(cube.path, tmp_path / "a.zip", weights=True, logits=True).path
    expected, good = everything(path), path.read_bytes()
    rng = random.Random(5)
    counts: Counter[str] = Counter()
    for _ in range(COUNT // 5):
        path.write_bytes(bad := damaged(good, rng))
        try:
            assert everything(path) == expected, "the pack was damaged, and another value was accepted"
            counts["unchanged" if bad == good else "same"] += 1
        except CubeError as error:
            counts["refused" if "\n" not in str(error) else "in many lines"] += 1
    print(f"packed cubes: {dict(sorted(counts.items()))}")
    assert counts["in many lines"] == 0
    assert counts["refused"] > 0
