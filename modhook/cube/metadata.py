"""The metadata of a cube, one file: read, checked against its own checksum, and replaced in one step.

All names, shapes, labels' types and attributes lie in the root's `zarr.json`, which holds the metadata of every node
("consolidated"). Its attribute `modhook_metadata_sha256` is the SHA-256 of the rest, as JSON with sorted keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from modhook.cube.plan import FORMAT
from modhook.errors import CubeError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

ROOT = "zarr.json"
CHECKSUM = "modhook_metadata_sha256"
# Codecs of numbers and plain text, which zarr itself brings. Others belong to packages that are installed by chance, and
# some of those unpickle.
_CODECS = {"bytes", "vlen-utf8", "vlen-bytes", "transpose", "zstd", "gzip", "blosc", "crc32c", "sharding_indexed"}
_UNSEALED = 1
"""The last format whose metadata had no checksum."""


def checksum(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a root document, its own checksum aside."""
    attributes = {k: v for k, v in document["attributes"].items() if k != CHECKSUM}
    text = json.dumps({**document, "attributes": attributes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parsed(data: bytes, where: str, *, sealed: bool = True) -> dict[str, Any]:
    """Return the root document of a cube after checking all that can be checked about it.

    Args:
        data: content of the root's `zarr.json`.
        where: the cube, for messages.
        sealed: whether the checksum must fit.

    Raises:
        CubeError: damage, a store that is no cube, or one of another format.
    """
    try:
        document = json.loads(data)
        attributes = document["attributes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CubeError(
            f"{where} is damaged: its file zarr.json cannot be read; restore that file from a copy."
        ) from error
    if not isinstance(attributes, dict) or "modhook_format" not in attributes:
        raise CubeError(f"{where} is a zarr store but not a modhook cube; give a folder that modhook run has written.")
    if attributes["modhook_format"] not in (_UNSEALED, FORMAT):
        raise CubeError(
            f"{where} is a cube of format {attributes['modhook_format']}, written by modhook {attributes.get('modhook_version')}, "
            f"but this modhook reads format {FORMAT}; use that version of modhook."
        )
    told = attributes.get(CHECKSUM, "" if attributes["modhook_format"] == FORMAT else None)
    if sealed and told is not None and told != checksum(document):
        raise CubeError(
            f"{where} is damaged, or was changed by another program: the checksum of its file zarr.json is wrong; restore "
            f"that file from a copy, or, if you made the change, accept it with modhook.cube.seal({where!r})."
        )
    nodes = nodes_of(document)
    if nodes is None or not isinstance(attributes.get("modhook_run_dims"), list):
        raise CubeError(
            f"{where} is damaged: its file zarr.json lacks the list of all variables; restore that file from a copy."
        )
    _check_names(nodes, where)
    _check_codecs(nodes, where)
    return document  # type: ignore[no-any-return]


def nodes_of(document: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the metadata of every node below the root, by name; None where they are not listed."""
    listed = document.get("consolidated_metadata")
    nodes = listed.get("metadata") if isinstance(listed, dict) else None
    if not isinstance(nodes, dict) or not all(isinstance(n, dict) for n in nodes.values()):
        return None
    return nodes


def variable_names(document: dict[str, Any]) -> list[str]:
    """Return the names of all variables of a root document, without coordinates, sorted."""
    # Every stage asks for them. Asked of zarr, each would first become an array with its codecs.
    arrays = {n: m for n, m in (nodes_of(document) or {}).items() if m.get("node_type") == "array"}
    return sorted(n for n, m in arrays.items() if m.get("dimension_names") != [n.rpartition("/")[2]])


class Draft(WrapperStore["Store"]):
    """A store whose root document is held back until `commit`.

    Whatever zarr does to the root, the file itself is written once, complete and with its checksum; replacing it is the
    moment at which a change becomes visible. Metadata of other nodes are read once: zarr asks for them at every step, and whoever
    changes them holds the writer's lock.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._held: Buffer | None = None
        self._nodes: dict[str, Buffer | None] = {}
        """Metadata that were read, None where there are none."""

    def _with_store(self, store: Store) -> Draft:
        draft = Draft(store)
        draft._held, draft._nodes = self._held, self._nodes
        return draft

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of one key; the root's as they will be."""
        if key == ROOT and self._held is not None:
            return self._held
        if not _of_node(key) or byte_range is not None:
            return await super().get(key, prototype, byte_range)
        if key not in self._nodes:
            self._nodes[key] = await super().get(key, prototype)
        return self._nodes[key]

    async def exists(self, key: str) -> bool:
        """Return whether a key is there."""
        if key == ROOT and self._held is not None:
            return True
        return self._nodes[key] is not None if key in self._nodes else await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key; the root's is kept in memory."""
        if key == ROOT:
            self._held = value
        else:
            self._nodes.pop(key, None)
            await super().set(key, value)
            if _of_node(key):
                self._nodes[key] = value

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one key unless it is there."""
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete one key."""
        self._nodes.pop(key, None)
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        for key in [k for k in self._nodes if k.startswith(f"{prefix}/")]:
            del self._nodes[key]
        await super().delete_dir(prefix)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    def commit(self) -> None:
        """Write the root with its checksum, in one step. Without a change of the root nothing is written."""
        if self._held is None:
            return
        document = json.loads(self._held.to_bytes())
        document["attributes"]["modhook_format"] = FORMAT
        document["attributes"][CHECKSUM] = checksum(document)
        prototype = default_buffer_prototype()
        sync(self._store.set(ROOT, prototype.buffer.from_bytes(json.dumps(document, indent=2).encode())))
        self._held = None


def _of_node(key: str) -> bool:
    return key.endswith(f"/{ROOT}")


def _check_names(nodes: dict[str, Any], where: str) -> None:
    for name in nodes:
        if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
            raise CubeError(f"{where} is no cube to be trusted: its variable {name!r} would lie outside of it.")


def _check_codecs(nodes: dict[str, Any], where: str) -> None:
    for name, node in nodes.items():
        if unknown := next((c for c in _codecs(node.get("codecs")) if c not in _CODECS), None):
            raise CubeError(
                f"{where} is no cube to be trusted: its variable {name!r} asks for the codec {unknown!r}, which modhook does not use."
            )


def _codecs(listed: Any) -> Iterator[str]:
    """Yield the name of every codec in a list of them, also of those within others."""
    for codec in listed if isinstance(listed, list) else ():
        if isinstance(codec, str):
            yield codec
        elif isinstance(codec, dict):
            yield str(codec.get("name"))
            inside = codec.get("configuration")
            for more in inside.values() if isinstance(inside, dict) else ():
                yield from _codecs(more) if _are_codecs(more) else ()


def _are_codecs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value)
