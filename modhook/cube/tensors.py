"""Masks, logits and weights between torch and a cube."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modhook.cube.contents import Run
from modhook.cube.cube import Cube
from modhook.cube.layout import Entry
from modhook.errors import CubeError, RunError, listing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modhook.masks import Masks
    from modhook.unit.group import Group


def write_masks(
    cube: Cube,
    layout: str,
    run: Run,
    stage: str,
    logits: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the logits of one stage, and its masks: `logits >= 0` before any rounding.

    Args:
        cube: opened for writing.
        layout: name given to `layout_variables`.
        run: labels of the run.
        stage: label of the stage.
        logits: one tensor per masked parameter, in the parameter's shape.
        masks: bool tensors to store instead of `logits >= 0`, for a sampler that decides otherwise.

    Raises:
        CubeError: tensors that do not fit the layout.
        RunError: logits that are NaN, of a fit that has diverged.
    """
    import torch

    entries = [e for e in table(cube, layout) if e.masked]
    _check(entries, logits, f"the logits of stage {stage!r}")
    for name, tensor in logits.items():
        if bool(tensor.isnan().any()):
            raise RunError(
                f"the logits of {name!r} in stage {stage!r} are NaN: the fit has diverged; use a smaller learning rate."
            )
    if masks is None:
        masks = {n: t >= 0 for n, t in logits.items()}
    _check(entries, masks, f"the masks of stage {stage!r}")
    bits = np.packbits(_flat(entries, masks, torch.bool))
    group = f"masks/{layout}"
    flat = _flat(entries, logits, torch.float32)
    if cube.dtype(f"{group}/logits") == "float16":
        # A logit beyond the range of float16 stays finite; what rounds to zero keeps its mask in the bits.
        flat = np.clip(flat, -65504, 65504).astype(np.float16)
    cube.write(f"{group}/logits", flat, run, stage=stage)
    cube.write(f"{group}/bits", bits, run, stage=stage)
    cube.write("runs/layout", layout, run)


def write_weights(cube: Cube, layout: str, run: Run, state: Mapping[str, Tensor], stage: str | None = None) -> None:
    """Write a network's `state_dict`, with `stage` where the layout keeps weights per stage.

    Raises `CubeError` for tensors that do not fit the layout.
    """
    import torch

    entries = [e for e in table(cube, layout) if not e.unit]
    _check(entries, state, "the weights")
    for entry in entries:
        if (dtype := _plain(state[entry.name].dtype)) != entry.dtype:
            raise CubeError(f"{entry.name!r} is {dtype}, but layout {layout!r} was laid out for {entry.dtype}.")
    group = f"masks/{layout}"
    labels = {} if stage is None else {"stage": stage}
    wide = torch.float64 if cube.dtype(f"{group}/weights") == "float64" else torch.float32
    cube.write(f"{group}/weights", _flat([e for e in entries if e.floating], state, wide), run, **labels)
    integers = [e for e in entries if not e.floating]
    if any(e.count for e in integers):  # the layout has no place for those that are all empty
        cube.write(f"{group}/integers", _flat(integers, state, torch.int64), run, **labels)
    cube.write("runs/layout", layout, run)


def read_masks(cube: Cube, layout: str, run: Run, stage: str) -> Masks:
    """Return the masks of one stage. Raises `CubeError` if the stage is not done or they were not written."""
    from modhook.masks import Masks

    entries = [e for e in table(cube, layout) if e.masked]
    packed = cube.read(f"masks/{layout}/bits", run, stage=stage)
    bits = np.unpackbits(packed, count=sum(e.count for e in entries)).astype(bool)
    return Masks(_tensors(entries, bits, lambda e: e.mask_offset), units={g.name: g for g in read_units(cube, layout)})


def read_units(cube: Cube, layout: str) -> tuple[Group, ...]:
    """Return the groups of units that a layout's masks are over. Raises `CubeError` for damaged ones."""
    from modhook.unit.group import read

    name = f"masks/{layout}/units"
    if name not in cube.variables:
        return ()
    try:
        return tuple(g for text in cube.read(name, {}).tolist() if text for g in read(text))
    except ValueError as error:
        raise CubeError(f"{name} of {cube.path} is damaged: it holds no units.") from error


def read_logits(cube: Cube, layout: str, run: Run, stage: str) -> dict[str, Tensor]:
    """Return the logits of one stage, as stored. Raises `CubeError` if they were not written."""
    flat = _written(cube, f"masks/{layout}/logits", run, {"stage": stage})
    return _tensors([e for e in table(cube, layout) if e.masked], flat, lambda e: e.mask_offset)


def read_weights(cube: Cube, layout: str, run: Run, stage: str | None = None) -> dict[str, Tensor]:
    """Return a network's `state_dict` in its own types. Raises `CubeError` if it was not written."""
    import torch

    entries = [e for e in table(cube, layout) if not e.unit]
    labels = {} if stage is None else {"stage": stage}
    weights = _written(cube, f"masks/{layout}/weights", run, labels)
    found = _tensors([e for e in entries if e.floating], weights, lambda e: e.offset)
    integers = [e for e in entries if not e.floating]
    held = any(e.count for e in integers)
    whole = _written(cube, f"masks/{layout}/integers", run, labels) if held else np.empty(0, np.int64)
    found |= _tensors(integers, whole, lambda e: e.offset)
    return {e.name: found[e.name].to(getattr(torch, e.dtype)) for e in entries}


def table(cube: Cube, layout: str) -> tuple[Entry, ...]:
    """Return where every tensor of a layout lies. Raises `CubeError` for an unknown layout."""
    if layout not in cube.entries:
        cube.entries[layout] = _table(cube, layout)
    return cube.entries[layout]


def _table(cube: Cube, layout: str) -> tuple[Entry, ...]:
    group = f"masks/{layout}"
    names = cube.labels(f"{group}/shape")["parameter"]
    columns = [cube.read(f"{group}/{c}", {}).tolist() for c in ("shape", "dtype", "count", "offset", "mask_offset")]
    return tuple(Entry(str(n), tuple(json.loads(s)), d, c, o, m) for n, s, d, c, o, m in zip(names, *columns, strict=True))


def _written(cube: Cube, name: str, run: Run, labels: Mapping[str, str]) -> NDArray[Any]:
    values = cube.read(name, run, **labels)  # first: it says which done stage has lost what
    if not cube.written(name, run, **labels):
        what = ", ".join(f"{d}={v}" for d, v in {**run, **labels}.items())
        raise CubeError(f"{name} of {what} has not been written to {cube.path}.")
    return values


def _check(entries: list[Entry], tensors: Mapping[str, Tensor], what: str) -> None:
    wanted = {e.name: e for e in entries}
    if differs := sorted(wanted.keys() ^ tensors.keys()):
        missing, extra = [n for n in differs if n in wanted], [n for n in differs if n in tensors]
        raise CubeError(
            f"{what} do not fit the cube's layout: missing: {listing(missing)}; not expected: {listing(extra)}."
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name].shape:
            raise CubeError(
                f"{what} do not fit the cube's layout: {name!r} has shape {tuple(tensor.shape)}, not {wanted[name].shape}."
            )


def _flat(entries: list[Entry], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> NDArray[Any]:
    import torch

    parts = [tensors[e.name].detach().to("cpu", dtype).reshape(-1) for e in entries]  # (count,) each
    flat: NDArray[Any] = (torch.cat(parts) if parts else torch.empty(0, dtype=dtype, device="cpu")).numpy()
    return flat


def _tensors(entries: list[Entry], flat: NDArray[Any], start: Callable[[Entry], int]) -> dict[str, Tensor]:
    import torch

    # A copy each: a result never shares its memory with another one.
    return {e.name: torch.from_numpy(flat[start(e) : start(e) + e.count].reshape(e.shape).copy()) for e in entries}


def _plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
