"""Where a cube lies: a local folder, or a URL that fsspec understands (`s3://bucket/folder/scan.zarr`)."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhook.errors import CubeError, GoneError, ModhookError, StorageError

if TYPE_CHECKING:
    from zarr.abc.store import Store

Where = str | Path
"""A local path, or a URL as text."""
DELETED = ".deleted"
"""Ends the name that a cube has while it is deleted."""
_LOOK, _SAME = 0.2, 3
"""Seconds between two looks at a place that may be losing its files, and how many equal ones say that it is not."""
_GROUPS = {"runs", "timing", "scores", "masks", "history", "overlap", "controls", "seed"}
# The root, the metadata of a node, and chunks, also half-written ones.
_OF_ZARR = re.compile(r"zarr\.json|(?:[^/]+/)+(?:zarr\.json|c|c/(?:\d+/)*\d+)|.*\.[0-9a-f]{32}\.partial")
# What other programs between here and the server may take for a way up, a separator or the end of the path.
MISLEADING = re.compile(r"[\\?#\x00-\x1f\x7f]|%2e|%2f|%5c|%00", re.IGNORECASE)


class Place(ABC):
    """One place: what may be asked of it before and beside the zarr store that lies there."""

    name: str
    """Last part of the path, `scan.zarr`."""
    mend = "restore that file from a copy, or start the study over with --fresh"
    """What to do about a damaged file that no run wrote."""
    mend_run = "compute it again with `modhook run STUDY --repair`, or restore that file from a copy"
    """What to do about a damaged file of a run."""

    @property
    @abstractmethod
    def path(self) -> Where:
        """The place as `place_of` takes it: an absolute path, or a URL."""

    @abstractmethod
    def __truediv__(self, name: str) -> Place:
        """Return the place `name` below this one."""

    @abstractmethod
    def exists(self) -> bool:
        """Return whether anything is there, leftovers of a creation that was killed aside."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return the content of one file. Raises `FileNotFoundError` if it is not there."""

    @abstractmethod
    def remove(self) -> None:
        """Delete everything that is there: it is gone in one step, and what a kill leaves of it is nobody's cube.

        `creating` and `modhook.cube.remove_leftovers` remove that.
        """

    @abstractmethod
    def looks_like_a_cube(self) -> bool:
        """Return whether nothing but the files of a zarr store lie there, as of a cube that has lost its root."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise `CubeError` unless files can be made here."""

    @abstractmethod
    def store(self, *, read_only: bool) -> Store:
        """Return the zarr store that is there."""

    @abstractmethod
    def creating(self) -> contextlib.AbstractContextManager[Store]:
        """Return an empty store to write a new cube to; it is there once the block has ended, or not at all.

        The caller holds the writer's lock, and writes the root's `zarr.json` last: where nothing can be renamed, that is
        the moment at which the cube is there. What a killed creation left behind is removed first.
        """

    @abstractmethod
    def lock_file(self, kind: str = "") -> Path:
        """Return the local file of one kind of lock. Its folder is made if need be; raises `OSError` if that fails."""

    @abstractmethod
    def is_failure(self, error: Exception) -> bool:
        """Return whether an error comes from the storage, and not from a defect."""

    def guard(self, key: str) -> None:
        """Raise `CubeError` for a key that leads out of this place."""
        return

    def verify(self, document: Mapping[str, Any]) -> None:
        """Raise `CubeError` if the files here are not those that the root's metadata tell of, where they do."""
        return

    @abstractmethod
    def still_there(self, *, request: bool = False) -> None:
        """Raise `GoneError` if the cube that was opened here is gone; where that takes a request, only with `request`."""

    @abstractmethod
    def count(self) -> int:
        """Return how many files lie here."""

    def await_deletion(self) -> None:
        """Raise `GoneError` if the cube that was opened here is just being deleted.

        Files go one by one, so a half-deleted cube looks damaged: while files go, the end is waited for.
        """
        left, same = 0, 0
        while same < _SAME:
            self.still_there(request=True)
            before, left = left, self.count()
            same = 0 if left < before else same + 1
            time.sleep(_LOOK)
        self.still_there(request=True)

    def gone(self) -> GoneError:
        """Return the error that says that the cube which was opened here is gone."""
        return GoneError(
            f"{self} is gone: it was moved or deleted while modhook was at work, and so is what it held; put it back and give the "
            "same command again, or start over."
        )

    @contextlib.contextmanager
    def failures(self, what: str) -> Iterator[None]:
        """Turn a failure of the storage within the block into a `StorageError` that says `what` and why."""
        try:
            yield
        except (ModhookError, FileNotFoundError):
            raise
        except Exception as error:
            if not self.is_failure(error):
                raise
            raise StorageError(f"{self} {what.format(reason=reason(error))}") from error

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Folder(Place):
    """A local folder."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.name = path.name
        self._real: str | None = None

    @property
    def path(self) -> Path:
        """The absolute path."""
        return self._path

    def __truediv__(self, name: str) -> Folder:
        return Folder(self._path / one_part(name))

    def exists(self) -> bool:
        """See `Place`. A link that leads nowhere is there, too."""
        return os.path.lexists(self._path)

    def read(self, key: str) -> bytes:
        """See `Place`. A folder where there should be a file is damage."""
        with self.failures("cannot be read: {reason}."):
            if (self._path / key).is_dir():
                raise CubeError(
                    f"{self} is damaged: its file {key} is a folder; restore that file from a copy, or start the study over "
                    "with --fresh."
                )
            return (self._path / key).read_bytes()

    def remove(self) -> None:
        """See `Place`. The folder is renamed, and then deleted. Raises `CubeError` for a link, whose target is elsewhere."""
        if self._path.is_symlink():
            raise CubeError(
                f"{self} is a link, and --fresh deletes nothing through a link; remove it, or name its target."
            )
        gone = self._path.with_name(f".{self.name}.{uuid.uuid4().hex[:8]}{DELETED}")
        with self.failures("cannot be deleted: {reason}."):
            self._path.rename(gone)
            with contextlib.suppress(FileNotFoundError):  # another process tidies up
                shutil.rmtree(gone)

    def looks_like_a_cube(self) -> bool:
        """See `Place`."""
        if not self._path.is_dir():
            return False
        found = [
            os.path.relpath(os.path.join(at, n), self._path) for at, _, files in os.walk(self._path) for n in files
        ]
        names = [name.replace(os.sep, "/") for name in found]
        known = not set(names) - {"zarr.json"} or any(name.split("/")[0] in _GROUPS for name in names)
        return known and all(_OF_ZARR.fullmatch(name) for name in names)

    def remove_deleted(self) -> None:
        """Remove what a `remove` that was killed has left."""
        for leftover in self._path.parent.glob(f".{glob.escape(self.name)}.*{DELETED}"):
            shutil.rmtree(leftover, ignore_errors=True)

    def check_writable(self) -> None:
        """See `Place`. The folder is made."""
        probe = self._path / ".modhook-write-test"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except (FileExistsError, NotADirectoryError) as error:
            at = next((p for p in (self._path, *self._path.parents) if p.exists()), self._path)
            raise CubeError(f"the output folder {self} cannot be made: {at} is a file; give another one with --out.") from error
        except OSError as error:
            raise CubeError(
                f"the output folder {self} is not writable ({reason(error)}); give another one with --out."
            ) from error

    def store(self, *, read_only: bool) -> Store:
        """See `Place`."""
        from zarr.storage import LocalStore

        return LocalStore(self._path, read_only=read_only)

    @contextlib.contextmanager
    def creating(self) -> Iterator[Store]:
        """See `Place`. The folder is made beside its place and moved there in one step."""
        from zarr.storage import LocalStore

        if self.exists():
            raise CubeError(f"{self} exists already; continue it, remove it, or use another --out.")
        self.remove_deleted()
        for leftover in self._path.parent.glob(f".{glob.escape(self.name)}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = self._path.with_name(f".{self.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            yield LocalStore(partial)
            partial.rename(self._path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def lock_file(self, kind: str = "") -> Path:
        """See `Place`. It lies beside the folder, hidden: locks stay when nobody holds them."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.with_name(f".{self.name}.{kind}.lock" if kind else f".{self.name}.lock")

    def is_failure(self, error: Exception) -> bool:
        """See `Place`."""
        return isinstance(error, OSError)

    def guard(self, key: str) -> None:
        """Raise `CubeError` if a link within the folder leads out of it. The folder itself may be a link."""
        if self._real is None:
            self._real = os.path.realpath(self._path)
        real = os.path.realpath(os.path.join(self._real, key))
        try:
            inside = os.path.commonpath((real, self._real)) == self._real
        except ValueError:  # another drive
            inside = False
        if not inside:
            raise CubeError(
                f"{self}/{key} is a link that leads out of the cube, to {real}; modhook neither reads nor writes through it: "
                "put the file itself there, or move the whole cube and link its folder."
            )

    def still_there(self, *, request: bool = False) -> None:
        """See `Place`. Without this a write would make the folders anew, and a read would take all of it as never written."""
        if not os.path.exists(self._path / "zarr.json"):
            raise self.gone()

    def count(self) -> int:
        """See `Place`."""
        return sum(len(files) for _, _, files in os.walk(self._path))


def reason(error: Exception) -> str:
    """Return why the storage refused, in one line."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(told.split()).rstrip(".")


def one_part(name: str) -> str:
    """Return a name that is one part of a path, whoever reads it. Raises `CubeError`."""
    if not name or name in (".", "..") or "/" in name or MISLEADING.search(name):
        raise CubeError(f"{name!r} cannot be the name of a cube; use letters, digits, '-' and '_'.")
    return name
