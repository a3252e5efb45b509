"""A cube in one zip file, which is only read: `modhook.cube.pack` writes it."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zarr.core.sync import sync

from modhook.cube.place import Place
from modhook.errors import CubeError, StorageError

if TYPE_CHECKING:
    from zarr.abc.store import Store

ENDING = ".zip"
PACKED = "modhook_packed"
"""Attribute of a packed cube's root: what was left out (`without`), and number and digest of the other files."""
ROOT = "zarr.json"
_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
# What Python's zipfile raises for damaged files, by which bytes were hit.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError, OverflowError)


class Packed(Place):
    """A zip file with the files of a cube."""

    mend = mend_run = "take the file from a copy, or pack the cube again"

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.name = path.name

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._path

    def __truediv__(self, name: str) -> Place:
        self._refuse()

    def exists(self) -> bool:
        """See `Place`."""
        return self._path.exists()

    def read(self, key: str) -> bytes:
        """See `Place`."""
        with self.failures("cannot be read: {reason}."):
            try:
                return self._zip.read(key)
            except KeyError:
                pass
        if key == ROOT:
            inside = next((n for n in self._zip.namelist() if n.endswith(f"/{ROOT}") and '"modhook_format"' in self._text(n)), "")
            found = f"the cube in it lies in a folder of its own, {inside.rpartition('/')[0]}: unzip it" if inside else ""
            raise CubeError(f"{self} is not a modhook cube; {found or 'give a file that modhook pack has written'}.")
        raise FileNotFoundError(f"{self} has no {key}")

    def verify(self, document: Mapping[str, Any]) -> None:
        """See `Place`. The list of files in a zip has no checksum of its own; a zip made by another program has none at all."""
        told = document["attributes"].get(PACKED)
        if told is not None and (not isinstance(told, dict) or told.get("digest") != of_files(self._zip.infolist())):
            raise CubeError(f"{self} is damaged: its list of files is not the one that was packed; {self.mend}.")

    def remove(self) -> None:
        """See `Place`."""
        self._refuse()

    def looks_like_a_cube(self) -> bool:
        """See `Place`."""
        return False

    def check_writable(self) -> None:
        """See `Place`."""
        raise CubeError(f"the output folder {self} cannot be made: {self} is a file; give another one with --out.")

    def store(self, *, read_only: bool) -> Store:
        """See `Place`."""
        from zarr.storage import ZipStore

        if not read_only:
            self._refuse()
        with self.failures("cannot be read: {reason}."):
            return sync(ZipStore.open(self._path, mode="r"))

    def creating(self) -> contextlib.AbstractContextManager[Store]:
        """See `Place`."""
        self._refuse()

    def lock_file(self, kind: str = "") -> Path:
        """See `Place`. Whoever wants a lock wants to write."""
        self._refuse()

    def is_failure(self, error: Exception) -> bool:
        """See `Place`."""
        return isinstance(error, (OSError, *_DAMAGE))

    @contextlib.contextmanager
    def failures(self, what: str) -> Iterator[None]:
        """Turn what a damaged file does to its reader into a `CubeError`, and a failing disk into a `StorageError`."""
        try:
            with super().failures(what):
                yield
        except StorageError as error:
            if isinstance(error.__cause__, _DAMAGE):
                raise CubeError(f"{self} is damaged ({error.__cause__}); {self.mend}.") from error.__cause__
            raise

    def still_there(self, *, request: bool = False) -> None:
        """See `Place`."""
        if not self._path.exists():
            raise self.gone()

    def count(self) -> int:
        """See `Place`."""
        return len(self._zip.namelist())

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise CubeError(
                f"{self} is not a modhook cube, or only a part of one: it cannot be read as a zip file ({error}); give a whole file "
                "that modhook pack has written."
            ) from error
        except OSError as error:
            raise StorageError(f"{self} cannot be read: {error.strerror or error}.") from error

    def _text(self, key: str) -> str:
        try:
            return self._zip.read(key).decode(errors="replace")
        except (OSError, *_DAMAGE):
            return ""

    def _refuse(self) -> NoReturn:
        raise CubeError(
            f"{self} is a packed cube, which is only read; give the cube that it was packed from, or unzip it into a folder first."
        )


def is_packed(path: Path) -> bool:
    """Return whether there is a file at `path` that is a zip file, or is called one."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() == ENDING:
            return True
        with path.open("rb") as file:
            return file.read(4) in _BEGINS
    except (OSError, ValueError):
        return False


def check_kept(attrs: Mapping[str, Any], name: str, where: object) -> None:
    """Raise `CubeError` for a variable that was left out when the cube was packed."""
    kind, told = name.rpartition("/")[2], attrs.get(PACKED)
    if isinstance(told, dict) and kind in told.get("without", ()):
        raise CubeError(f"{where} was packed without {kind}; pack the cube again with --{kind}, or open the cube itself.")


def of_files(files: Iterable[zipfile.ZipInfo]) -> str:
    """Return a digest of names, sizes and checksums of the files in a zip, the root aside."""
    found = hashlib.blake2b(digest_size=16)
    for file in sorted(files, key=lambda f: f.filename):
        if file.filename != ROOT:
            found.update(f"{file.filename}\t{file.file_size}\t{file.CRC:08x}\n".encode())
    return found.hexdigest()
