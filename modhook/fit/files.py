"""A fit in a file: everything but the network, as safetensors and JSON. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from torch import Tensor, nn

from modhook.errors import CheckpointError, UserError
from modhook.masks import Masks
from modhook.plugin.contract import CarriedGradients
from modhook.steps.snapshot import read_snapshot, write_snapshot
from modhook.unit.group import read, written
from modhook.values.arguments import instance

if TYPE_CHECKING:
    import xarray as xr

    from modhook.fit.result import Fit

FORMAT = "modhook-fit-1"


def save(fit: Fit, path: str | Path) -> None:
    """Write a fit; see `Fit.save`."""
    instance("path", path, (str, Path), "a path")
    fields = {f.name: getattr(fit, f.name) for f in attrs.fields(type(fit)) if f.name != "model"}
    try:
        write_snapshot(Path(path), {name: _packed(value) for name, value in fields.items()}, FORMAT)
    except OSError as error:
        raise UserError(f"the fit cannot be written to {path}: {error.strerror or error}.") from error


def load(kind: type[Fit], path: str | Path, model: nn.Module | None) -> Fit:
    """Read a fit; see `Fit.load`."""
    instance("path", path, (str, Path), "a path")
    if model is not None:
        instance("model", model, nn.Module, "an nn.Module")
    state = read_snapshot(Path(path), FORMAT, "a fit", "; give a file written by Fit.save")
    try:
        known = {f.name for f in attrs.fields(kind)}
        fields = {name: _unpacked(value) for name, value in state.items() if name in known}
        fit = kind(**fields, model=model)
        _check(fit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: it holds no whole fit.") from error
    if model is None:
        return fit
    own = {n: getattr(fit, n) for n in ("masks", "threshold", "fixed", "among")}
    return attrs.evolve(fit, **{n: m._belonging(model, path) for n, m in own.items() if m is not None})


def _packed(value: Any) -> Any:
    """Return a field as what a snapshot holds, with its kind where it is no plain value."""
    if isinstance(value, Masks):
        units = {"units": written(tuple(value._groups.values()))} if value._groups else {}
        return {"masks": dict(value._masks), "fingerprint": value.fingerprint, "tied": value._tied, **units}
    if isinstance(value, CarriedGradients):
        return {"carried": {"weights": dict(value.weights), "logits": value.logits}}
    if hasattr(value, "data_vars"):
        parts = {"coords": value.coords, "data": value.data_vars}
        return {
            "dataset": {k: {str(n): _variable(v) for n, v in of.items()} for k, of in parts.items()},
            "attrs": value.attrs,
        }
    return {"plain": value}


def _variable(values: xr.DataArray) -> tuple[Any, ...]:
    array = values.values
    texts = array.dtype.kind not in "fiub"
    return tuple(map(str, values.dims)), [str(v) for v in array.tolist()] if texts else array, dict(values.attrs)


def _unpacked(value: Mapping[str, Any]) -> Any:
    import xarray as xr

    if "masks" in value:
        masks = Masks(value["masks"], units={g.name: g for g in read(value.get("units", "[]"))})
        masks.fingerprint, masks._tied = value["fingerprint"], value["tied"]
        return masks
    if "carried" in value:
        return CarriedGradients(value["carried"]["weights"], value["carried"]["logits"])
    if "dataset" in value:
        parts = {
            kind: {
                n: (dims, np.array(v, dtype=object) if isinstance(v, list) else v, a) for n, (dims, v, a) in of.items()
            }
            for kind, of in value["dataset"].items()
        }
        return xr.Dataset(parts["data"], parts["coords"], value["attrs"])
    return value["plain"]


def _check(fit: Fit) -> None:
    """Raise `TypeError` for fields that no fit has; the checksum says that they are as they were written, not who wrote them."""
    named = [fit.logits, fit.weights, fit.earlier, {} if fit.off is None else fit.off]
    if not (
        isinstance(fit.masks, Masks)
        and all(isinstance(m, Masks | None) for m in (fit.threshold, fit.fixed, fit.among))
        and all(isinstance(d, dict) and all(isinstance(t, Tensor) for t in d.values()) for d in named)
        and all(n in fit.masks and fit.masks._masks[n].shape == t.shape for n, t in (*fit.logits.items(), *fit.earlier.items()))
        and hasattr(fit.history, "data_vars")
        and isinstance(fit.steps, int)
        and isinstance(fit.stopped, str | None)
        and isinstance(fit.cautions, tuple)
        and all(isinstance(caution, str) for caution in fit.cautions)
    ):
        raise TypeError
