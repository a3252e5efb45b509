"""Reading and writing a cube's store so that damage is noticed and named, and so is a storage that fails."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from modhook.cube.ledger import Ledger, damaged, digest, sound
from modhook.cube.metadata import ROOT, Draft, nodes_of, parsed
from modhook.cube.packed import ENDING, Packed
from modhook.cube.place import Folder, Place, Where
from modhook.cube.where import place_of
from modhook.errors import CubeError, ModhookError, near_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

CHUNK = re.compile(r"(?P<array>.+)/c(?:/\d+)*")
_READ = "cannot be read: {reason}; check the connection and your permission."
_WRITE = "cannot be written: {reason}; check space, permission and connection."


class StorageStore(WrapperStore["Store"]):
    """A store whose failures (no space, no permission, connection cut) become one sentence.

    Only what the storage itself raises is turned into a `StorageError`; a defect stays what it is.
    """

    def __init__(self, store: Store, place: Place) -> None:
        super().__init__(store)
        self.place = place

    def _with_store(self, store: Store) -> StorageStore:
        return StorageStore(store, self.place)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of one key."""
        self.place.guard(key)
        with self.place.failures(_READ):
            return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Return whether a key is there."""
        self.place.guard(key)
        with self.place.failures(_READ):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key."""
        self.place.guard(key)
        with self.place.failures(_WRITE):
            try:
                await super().set(key, value)
            except FileNotFoundError as error:  # the folder or the bucket has gone
                raise OSError(str(error)) from error

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one key unless it is there."""
        if not await self.exists(key):
            await self.set(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete one key."""
        self.place.guard(key)
        with self.place.failures(_WRITE):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        self.place.guard(prefix)
        with self.place.failures(_WRITE):
            await super().delete_dir(prefix)


class CheckedStore(StorageStore):
    """The store of a cube: its checked root, and chunks that are checked as they are read.

    The crc32c at the end of every chunk is checked here, because zarr's message names neither variable nor file. Arrays
    without a checksum, which others may have added, are left alone. The root is read once: what was checked is what is used.
    A file of a run is compared with the run's record (`modhook.cube.ledger`), also where it is not there.
    """

    def __init__(self, store: Store, place: Place, root: bytes, document: dict[str, Any]) -> None:
        super().__init__(store, place)
        self.document = document
        """The root's metadata, checked."""
        self._root = root
        self.ledger = Ledger(place, document)
        self.written: dict[str, str] = {}
        """Digests of the files of values written through this store, until somebody takes them."""
        nodes = (nodes_of(document) or {}).items()
        self._has_checksum = {n: _ends_with_checksum(m) for n, m in nodes if m.get("node_type") == "array"}
        self._labels = {n for n, m in nodes if m.get("dimension_names") == [n.rpartition("/")[2]]}

    def _with_store(self, store: Store) -> CheckedStore:
        other = CheckedStore(store, self.place, self._root, self.document)
        other.ledger, other.written = self.ledger, self.written
        return other

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key."""
        self.place.still_there()
        await super().set(key, value)
        if self.ledger.active and CHUNK.fullmatch(key):
            self.written[key] = digest(key, value.to_bytes())

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of one key. Raises `CubeError` for a chunk whose checksum does not fit."""
        if key == ROOT and byte_range is None:
            return prototype.buffer.from_bytes(self._root)
        value = await super().get(key, prototype, byte_range)
        chunk = CHUNK.fullmatch(key)
        if byte_range is not None or chunk is None or not await self._checked(chunk["array"]):
            return value
        array = chunk["array"]
        if value is None:
            self.place.still_there()
        if value is None and array in self._labels:
            raise CubeError(
                f"{self.place} is damaged: the labels of {array} cannot be read, {self.place}/{key} is missing; "
                f"{self.place.mend}."
            )
        data = None if value is None else value.to_bytes()
        if data is not None and not sound(data):
            run = self.ledger.run_of(array, key)
            if run is not None and self.ledger.active:
                of = f"of {self.ledger.say(run)} "
                raise damaged(self.place, f"{array} {of}cannot be read, the checksum of {self.place}/{key} is wrong")
            raise CubeError(
                f"{self.place} is damaged: {array} cannot be read, the checksum of {self.place}/{key} is wrong; "
                f"{self.place.mend}."
            )
        if self.ledger.active and await self._fault(array, key, data, False):
            # The stage may have been computed again since its record was read: both are looked at anew.
            value = await super().get(key, prototype)
            data = None if value is None else value.to_bytes()
            if fault := await self._fault(array, key, data, True):
                raise damaged(self.place, fault)
        return value

    async def _fault(self, array: str, key: str, data: bytes | None, fresh: bool) -> str | None:
        if isinstance(self.place, Folder | Packed):
            return self.ledger.fault(array, key, data, fresh)
        return await asyncio.to_thread(self.ledger.fault, array, key, data, fresh)

    async def _checked(self, array: str) -> bool:
        if array not in self._has_checksum:  # not listed in the root (yet)
            found = await super().get(f"{array}/zarr.json", default_buffer_prototype())
            try:
                self._has_checksum[array] = found is not None and _ends_with_checksum(json.loads(found.to_bytes()))
            except ValueError:
                self._has_checksum[array] = False
        return self._has_checksum[array]

    def has(self, key: str) -> bool:
        """Return whether a key is there."""
        return bool(sync(self.exists(key)))


def open_store(place: Place, *, read_only: bool, sealed: bool = True) -> CheckedStore:
    """Return the store at a place after checking that it is a modhook cube. Raises `CubeError`, `StorageError`.

    `sealed` says whether the checksum of the metadata must fit.
    """
    try:
        if isinstance(place, Folder) and place.path.is_file():  # otherwise it is the storage that fails: "Not a directory"
            raise NotADirectoryError(place.path)
        root = place.read(ROOT)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not place.exists():
            raise CubeError(
                f"there is no cube at {place}{_near(place)}; run the study first, or check the name."
            ) from error
        raise CubeError(
            f"{place} is not a modhook cube; give a folder that modhook run has written, such as results/scan.zarr."
        ) from error
    document = parsed(root, str(place), sealed=sealed)
    place.verify(document)
    return CheckedStore(place.store(read_only=read_only), place, root, document)


def _near(place: Place) -> str:
    if isinstance(place, Folder):
        return near_file(place.path, (".zarr", ENDING), ("", "results"))
    return " (a packed cube is read from this machine: download it first)" if place.name.endswith(ENDING) else ""


def keeps_records(path: Where) -> bool:
    """Return whether the cube at a path or URL keeps records of what each stage wrote; those of older versions do not."""
    return open_store(place_of(path), read_only=True).ledger.active


def open_root(store: CheckedStore | Draft, place: Place, *, writable: bool) -> zarr.Group:
    """Return the root group with its consolidated metadata. Raises `CubeError` if they cannot be understood."""
    mode: Any = "r+" if writable else "r"
    try:
        return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=True)
    except ModhookError:
        raise
    except Exception as error:  # whatever zarr stumbles over in a damaged file
        raise CubeError(f"{place} is damaged: its file zarr.json cannot be understood ({error}).") from error


def _ends_with_checksum(metadata: Any) -> bool:
    codecs = metadata.get("codecs") if isinstance(metadata, dict) else None
    last = codecs[-1] if isinstance(codecs, list) and codecs else None
    return isinstance(last, dict) and last.get("name") == "crc32c"
