"""From a path or URL, as users write them, to the place that it names."""

from __future__ import annotations

import re
from pathlib import Path

from modhook.cube.packed import ENDING, Packed, is_packed
from modhook.cube.place import MISLEADING, Folder, Place, Where
from modhook.errors import CubeError

_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # longer than the letter of a drive


def is_url(where: Where) -> bool:
    """Return whether `where` is a URL and no local path."""
    return isinstance(where, str) and _URL.match(where) is not None


def place_of(where: Where) -> Place:
    """Return the place of a path or URL. Raises `CubeError` for a URL that is none or that leads upwards."""
    if isinstance(where, Path) and where.parts and _PROTOCOL.fullmatch(where.parts[0]):
        raise CubeError(f"{where} is a URL that was made a Path and has lost a '/'; give the URL as text.")
    found = _URL.fullmatch(str(where))
    if found is None:
        return _local(Path(where))
    protocol, rest = found["protocol"].lower(), found["rest"]
    parts = rest.split("/")
    if not rest.strip("/") or "::" in rest:
        raise CubeError(f"{where} names no place for a cube; write a folder, or a URL such as s3://bucket/folder.")
    if {".", ".."} & set(parts) or MISLEADING.search(rest):
        raise CubeError(
            f"{where!r} is not a plain URL; leave out '.', '..', '?', '#', backslashes and encoded separators."
        )
    if protocol in ("file", "local"):
        return _local(Path(rest))
    from modhook.cube.remote import Remote

    lead = "/" if rest.startswith("/") else ""  # hdfs:///folder has no host
    return Remote(f"{protocol}://{lead}" + "/".join(p for p in parts if p))


def beside(where: Where, suffix: str) -> Path:
    """Return the local path for files that belong to a cube: beside it, or in the current folder if it lies at a URL.

    `results/scan.zarr` and `-figures` make `results/scan-figures`, and so does `results/scan.zip`; `s3://bucket/scan.zarr` makes
    `scan-figures`.
    """
    place = place_of(where)
    name = stem(place.name) + suffix
    if not isinstance(place, Folder | Packed):
        return Path(name)
    return (Path(where) if not is_url(where) else place.path).with_name(name)


def stem(name: str) -> str:
    """Return the name of a cube without its ending: `scan` of `scan.zarr`, `scan.zip` and `scan.zarr.zip`."""
    return next((short for end in (f".zarr{ENDING}", ".zarr", ENDING) if (short := name.removesuffix(end)) not in (name, "")), name)


def _local(path: Path) -> Folder | Packed:
    return Packed(path) if is_packed(path) else Folder(path)
