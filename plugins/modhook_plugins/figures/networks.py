"""What figures compare: one network per cube and sweep point, with a label that tells it from the others."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import attrs
import numpy as np
import xarray as xr

# Settings that may tell two networks apart, the most telling first; analyses do not change a network.
_TELLING = ("model", "task", "protocol", "masks", "train")
_KINDS = {"seq2seq_lstm": "LSTM", "seq2seq_transformer": "Transformer", "cnn": "CNN"}


@attrs.frozen
class Network:
    """One cube at one sweep point. Sweep keys that are pooled stay dimensions."""

    label: str
    cube: xr.DataTree
    point: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Return whether the cube has a variable, `"group/name"`."""
        return has(self.cube, name)

    def values(self, name: str) -> xr.DataArray:
        """Return a variable at this sweep point, read from disk: (seed, pooled sweep keys, its own dimensions)."""
        group, _, short = name.rpartition("/")
        return self.cube[group].data_vars[short].sel(self.point).load()

    @property
    def seeds(self) -> int:
        """How many seeds the study has."""
        return int(self.cube.sizes["seed"])

    @property
    def kind(self) -> str:
        """The network plugin's name."""
        return str(setting(self.cube, "model.name", ""))


def has(cube: xr.DataTree, name: str) -> bool:
    """Return whether a cube has a variable, `"group/name"`."""
    group, _, short = name.rpartition("/")
    return group in cube.children and short in cube[group].data_vars


def labels_of(cube: xr.DataTree, group: str, dim: str) -> list[str]:
    """Return the labels of one of a group's dimensions: `labels_of(cube, "scores", "stage")`."""
    return [str(label) for label in cube[group].coords[dim].values]


def setting(cube: xr.DataTree, path: str, default: Any = None) -> Any:
    """Return one setting of a cube's study, `"analyses.inverse.io"`."""
    at: Any = cube.attrs.get("study", {})
    for part in path.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return default
        at = at[part]
    return at


def networks(cubes: Sequence[xr.DataTree], pool: Collection[str] = (), limit: int = 8) -> tuple[list[Network], str]:
    """Return every network of the cubes, and a note on those that were left out because there are more than `limit`.

    `pool` names sweep keys that are not taken apart. Left out are points between the others, never the first or the last.
    """
    found = [Network("", cube, point) for cube in cubes for point in points(cube, pool)]
    found = [attrs.evolve(n, label=label) for n, label in zip(found, _labels(found), strict=True)]
    if len(found) <= limit:
        return found, ""
    return [found[round(i)] for i in np.linspace(0, len(found) - 1, limit)], f"{limit} of {len(found)} networks"


def points(cube: xr.DataTree, pool: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return every combination of the sweep's labels, or one empty point."""
    keys = [str(d) for d in cube.attrs.get("modhook_run_dims", ()) if d != "seed" and d not in pool]
    return [dict(zip(keys, v, strict=True)) for v in itertools.product(*(cube.coords[k].values.tolist() for k in keys))]


def short_key(key: str) -> str:
    """Return a setting's name without its table, `masks.beta` -> `beta`."""
    return key.rpartition(".")[2].replace("_", " ")


# -- labels


def _labels(found: Sequence[Network]) -> list[str]:
    """Return distinct labels: the kind of network, then what else tells equal ones apart, then a number."""
    labels = [_kind(n) for n in found]
    for alike in _alike(labels):
        tables = [_settings(found[i]) for i in alike]
        # A setting that follows from another one (or that they share) tells nothing new.
        chosen: list[str] = []
        for key in _telling(tables):
            before, after = (
                len({tuple(t.get(k, "") for k in keys) for t in tables}) for keys in (chosen, [*chosen, key])
            )
            if after > before:
                chosen.append(key)
        for i, table in zip(alike, tables, strict=True):
            extra = ", ".join(
                f"{short_key(k)} {table[k]}".removeprefix("name ") for k in chosen if k in table and table[k] != "none"
            )
            labels[i] = f"{labels[i]}, {extra}" if extra else labels[i]
    for alike in _alike(labels):
        names = [PurePath(found[i].cube.encoding.get("source", "")).stem for i in alike]
        for number, (i, name) in enumerate(zip(alike, names, strict=True), 1):
            labels[i] += f" ({name if name and names.count(name) == 1 else number})"
    return labels


def _alike(labels: Sequence[str]) -> Iterator[list[int]]:
    for label, count in Counter(labels).items():
        if count > 1:
            yield [i for i, other in enumerate(labels) if other == label]


def _kind(network: Network) -> str:
    model = dict(setting(network.cube, "model", {})) | {
        k.removeprefix("model."): v for k, v in network.point.items() if k.startswith("model.")
    }
    name = str(model.get("name", "network"))
    if name == "fnn":
        return f"FNN {text(model.get('hidden', ''))}".strip()
    if name == "lstm":
        return f"LSTM {model.get('layers', 2)}x{text(model.get('hidden', ''))}"
    if name == "resnet" and isinstance(model.get("blocks"), int):
        return f"ResNet-{6 * model['blocks'] + 2}"
    return _KINDS.get(name, name.rpartition(":")[2])


def _settings(network: Network) -> dict[str, str]:
    """Return all settings as short texts by path; those of the sweep point too."""

    def flat(table: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", text(value)

    study = network.cube.attrs.get("study", {})
    chosen = {part: study[part] for part in _TELLING if isinstance(study.get(part), Mapping)}
    return dict(flat(chosen, "")) | {k: text(v) for k, v in network.point.items()}


def _telling(tables: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the settings in which the tables differ: swept ones and those with short values first."""
    keys = dict.fromkeys(k for t in tables for k in t)
    different = [k for k in keys if len({t[k] for t in tables if k in t}) > 1]
    return sorted(
        different, key=lambda k: (_TELLING.index(k.partition(".")[0]), max(len(t.get(k, "")) for t in tables) > 14)
    )


def text(value: Any) -> str:
    """Return a setting as a short text: `[800, 800]` -> `800x2`, 1e-4 -> `0.0001`, an empty list -> `none`."""
    if isinstance(value, (list, tuple)):
        parts = [text(v) for v in value]
        same = len(parts) > 1 and len(set(parts)) == 1
        return (f"{parts[0]}x{len(parts)}" if same else "-".join(parts)) if parts else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


_LAYERS = (
    (re.compile(r"[._]weight$"), ""),
    (re.compile(r"^groups\.(\d+)\.(\d+)\."), lambda m: f"g{int(m[1]) + 1}b{int(m[2]) + 1} "),
    (re.compile(r"weight_ih_l(\d+)"), lambda m: f"layer{int(m[1]) + 1} in"),
    (re.compile(r"weight_hh_l(\d+)"), lambda m: f"layer{int(m[1]) + 1} rec"),
    (re.compile(r"bias_[ih]h_l(\d+)"), lambda m: f"layer{int(m[1]) + 1} bias"),
    (re.compile(r"^(lstm|gru|rnn)\."), ""),
    (re.compile(r"^(enc|dec)oder\.(\d+)\."), lambda m: f"{m[1]}{int(m[2]) + 1} "),
    (re.compile(r"^(enc|dec)oder\."), lambda m: f"{m[1]} "),
    (re.compile(r"self_attn\.in_proj"), "attn qkv"),
    (re.compile(r"self_attn\.out_proj"), "attn out"),
    (re.compile(r"multihead_attn\.in_proj"), "cross qkv"),
    (re.compile(r"multihead_attn\.out_proj"), "cross out"),
    (re.compile(r"linear(\d)"), r"ff\1"),
    (re.compile(r"layer(\d+)"), r"layer \1"),
    (re.compile(r"conv(\d+)$"), r"conv \1"),
    (re.compile(r"[._]"), " "),
)


def layer_labels(parameters: Iterable[Any]) -> list[str]:
    """Return short names of parameters for an axis: `layer1.weight` -> `layer 1`, `lstm.weight_hh_l0` -> `layer 1 rec`.

    A name that would not be told from another one stays whole.
    """
    names = [str(p) for p in parameters]
    short = []
    for name in names:
        label = name
        for pattern, new in _LAYERS:
            label = pattern.sub(new, label)
        short.append(label)
    return [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
