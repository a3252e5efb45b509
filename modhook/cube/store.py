"""Where a cube lies, and reading it so that damage is noticed and named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from modhook.cube.plan import FORMAT
from modhook.errors import CubeError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

_CHUNK = re.compile(r"(?P<array>.+)/c(?:/\d+)*")


class CheckedStore(WrapperStore["Store"]):
    """A store that checks the crc32c at the end of every chunk and says which variable and file is damaged.

    zarr checks as well, but its message names neither. Arrays without a checksum, which others may have added, are left alone.
    """

    def __init__(self, store: Store, where: str) -> None:
        super().__init__(store)
        self._where = where
        self._has_checksum: dict[str, bool] = {}

    def _with_store(self, store: Store) -> CheckedStore:
        return CheckedStore(store, self._where)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of one key. Raises `CubeError` for a chunk whose checksum does not fit."""
        value = await super().get(key, prototype, byte_range)
        chunk = _CHUNK.fullmatch(key)
        if value is None or byte_range is not None or chunk is None or not await self._checked(chunk["array"]):
            return value
        data = value.to_bytes()
        if len(data) < 4 or google_crc32c.value(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise CubeError(
                f"{self._where} is damaged: {chunk['array']} cannot be read, the checksum of {self._where}/{key} is wrong; "
                "restore that file from a copy, or run the study again into a new folder."
            )
        return value

    async def _checked(self, array: str) -> bool:
        if array not in self._has_checksum:
            found = await super().get(f"{array}/zarr.json", default_buffer_prototype())
            try:
                codecs = json.loads(found.to_bytes())["codecs"] if found is not None else []
            except (ValueError, KeyError):
                codecs = []
            self._has_checksum[array] = bool(codecs) and codecs[-1].get("name") == "crc32c"
        return self._has_checksum[array]


def local(path: str | Path) -> Path:
    """Return the absolute path of a cube. Raises `CubeError` for a URL."""
    if "://" in str(path):
        raise CubeError(f"{path} is a URL; cubes are read and written in local folders only, copy it first.")
    return Path(path).absolute()


def open_store(path: str | Path, *, read_only: bool) -> CheckedStore:
    """Return the store at `path` after checking that it is a modhook cube. Raises `CubeError`."""
    path = local(path)
    if not path.exists():
        raise CubeError(f"there is no cube at {path}; run the study first, or check the name.")
    root = path / "zarr.json"
    if not path.is_dir() or not root.is_file():
        raise CubeError(
            f"{path} is not a modhook cube; give a folder that modhook run has written, such as results/scan.zarr."
        )
    try:
        document = json.loads(root.read_bytes())
        attributes = document["attributes"]
    except OSError as error:
        raise CubeError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CubeError(
            f"{path} is damaged: its file zarr.json cannot be read; restore that file from a copy."
        ) from error
    if not isinstance(attributes, dict) or "modhook_format" not in attributes:
        raise CubeError(f"{path} is a zarr store but not a modhook cube; give a folder that modhook run has written.")
    if attributes["modhook_format"] != FORMAT:
        raise CubeError(
            f"{path} is a cube of format {attributes['modhook_format']}, written by modhook {attributes.get('modhook_version')}, "
            f"but this modhook reads format {FORMAT}; use that version of modhook."
        )
    if not document.get("consolidated_metadata") or not isinstance(attributes.get("modhook_run_dims"), list):
        raise CubeError(
            f"{path} is damaged: its file zarr.json lacks the list of all variables; restore that file from a copy."
        )
    return CheckedStore(LocalStore(path, read_only=read_only), str(path))


def open_root(store: CheckedStore, where: Path) -> zarr.Group:
    """Return the root group with its consolidated metadata. Raises `CubeError` if they cannot be understood."""
    mode: Any = "r" if store.read_only else "r+"
    try:
        return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=True)
    except CubeError:
        raise
    except Exception as error:  # whatever zarr stumbles over in a damaged file
        raise CubeError(f"{where} is damaged: its file zarr.json cannot be understood ({error}).") from error
