"""A place that fsspec reaches: object stores such as S3, and whatever else it has a package for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhook.cube.place import Place, one_part, reason
from modhook.errors import CubeError

if TYPE_CHECKING:
    from zarr.abc.store import Store

# Another machine may write as well: a listing is asked for anew each time.
_OPTIONS = {"use_listings_cache": False}
# Files of a cube are small: s3fs would ask for the size of each before it reads it, to read large ones in parts at once.
_S3_OPTIONS = {"max_concurrency": 1}
_READ = "cannot be read: {reason}; check the connection and your permission."
_PACKAGES = {"s3": 'pip install "modhook[s3]"', "s3a": 'pip install "modhook[s3]"'}


class Remote(Place):
    """A folder at a URL. Options such as keys and the server's address come from fsspec's own configuration.

    There is no renaming, so a cube is there once its root `zarr.json` is. A marker beside the cube,
    `.NAME.partial`, says that files without a root are leftovers of modhook's own, and nobody else's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = url.rpartition("/")[2]
        self._filesystem: tuple[Any, str] | None = None

    @property
    def path(self) -> str:
        """The URL."""
        return self._url

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self._url}/{one_part(name)}")

    def exists(self) -> bool:
        """See `Place`."""
        fs, path = self._reached()
        with self.failures("cannot be reached: {reason}; check the address, your permission and the connection."):
            return bool(fs.exists(f"{path}/zarr.json")) or (self._any(fs, path) and not fs.exists(self._marker(path)))

    def read(self, key: str) -> bytes:
        """See `Place`."""
        fs, path = self._reached()
        with self.failures(_READ):
            return bytes(fs.cat_file(f"{path}/{key}"))

    def remove(self) -> None:
        """See `Place`. The root goes first, so that there is never half a cube."""
        fs, path = self._reached()
        with self.failures("cannot be deleted: {reason}; check the connection and your permission."):
            fs.pipe_file(self._marker(path), b"")
            self._remove(fs, path)
            fs.rm_file(self._marker(path))

    def still_there(self, *, request: bool = False) -> None:
        """See `Place`. `info` says which error it was; `exists` of some filesystems takes every one for a no."""
        if request:
            fs, path = self._reached()
            try:
                with self.failures(_READ):
                    fs.info(f"{path}/zarr.json")
            except FileNotFoundError as error:
                raise self.gone() from error

    def count(self) -> int:
        """See `Place`."""
        fs, path = self._reached()
        try:
            with self.failures(_READ):
                return len(fs.find(path))
        except FileNotFoundError:
            return 0

    def looks_like_a_cube(self) -> bool:
        """See `Place`. It never does: at a URL only a root that says so makes a cube."""
        return False

    def check_writable(self) -> None:
        """See `Place`."""
        fs, path = self._reached()
        probe = f"{path}/.modhook-write-test"
        try:
            fs.pipe_file(probe, b"")
            fs.rm_file(probe)
        except Exception as error:
            if not self.is_failure(error):
                raise
            raise CubeError(
                f"the output folder {self} is not writable ({reason(error)}); check the address, your permission and the "
                "connection, or give another one with --out."
            ) from error

    def store(self, *, read_only: bool) -> Store:
        """See `Place`."""
        from zarr.storage import FsspecStore

        self._reached()  # a missing package is named there
        return FsspecStore.from_url(self._url, storage_options=self._options(), read_only=read_only)

    @contextlib.contextmanager
    def creating(self) -> Iterator[Store]:
        """See `Place`."""
        fs, path = self._reached()
        if self.exists():
            raise CubeError(f"{self} exists already; continue it, remove it, or use another --out.")
        with self.failures("cannot be written: {reason}; check the connection and your permission."):
            if self._any(fs, path):
                self._remove(fs, path)
            fs.pipe_file(self._marker(path), b"")
        yield self.store(read_only=False)
        with self.failures("cannot be written: {reason}; check the connection and your permission."):
            fs.rm_file(self._marker(path))

    def lock_file(self, kind: str = "") -> Path:
        """See `Place`. It lies in this machine's folder for temporary files and stands for the URL."""
        user = os.getuid() if hasattr(os, "getuid") else "0"
        folder = Path(tempfile.gettempdir()) / f"modhook-locks-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(self._url.encode()).hexdigest()[:32]
        return folder / (f"{name}.{kind}.lock" if kind else f"{name}.lock")

    def is_failure(self, error: Exception) -> bool:
        """See `Place`: a system error, or one of the classes of the package that speaks to the server.

        Python's own other errors (`TypeError`, `KeyError`, ...) would be defects.
        """
        return isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in ("builtins", "zarr")

    def _reached(self) -> tuple[Any, str]:
        """Return the filesystem and the path in it. Raises `CubeError` if fsspec has nothing for this URL."""
        if self._filesystem is None:
            import fsspec

            protocol = self._url.partition("://")[0]
            try:
                self._filesystem = fsspec.url_to_fs(self._url, **self._options())
            except ImportError as error:
                how = _PACKAGES.get(protocol, str(error))
                raise CubeError(f"{self} needs a package that is not installed; install it: {how}.") from error
            except (ValueError, TypeError) as error:  # also a kind of place that a URL alone does not describe
                raise CubeError(f"{self} cannot be used for a cube: {reason(error)}.") from error
            except Exception as error:
                if not self.is_failure(error):
                    raise
                raise CubeError(f"{self} cannot be reached: {reason(error)}.") from error
        return self._filesystem

    def _options(self) -> dict[str, Any]:
        return _OPTIONS | (_S3_OPTIONS if self._url.partition("://")[0] in ("s3", "s3a") else {})

    def _marker(self, path: str) -> str:
        above, _, name = path.rpartition("/")
        return f"{above}/.{name}.partial"

    def _any(self, fs: Any, path: str) -> bool:
        try:
            return bool(fs.ls(path, detail=False))
        except FileNotFoundError:
            return False

    def _remove(self, fs: Any, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{path}/zarr.json")
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)
