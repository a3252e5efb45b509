"""Downloads: a checksum, a cache folder, and the rest of a file instead of all of it after a break (pooch, requests).

Both libraries are imported only where something is to be downloaded.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
from rich.progress import DownloadColumn

from modhook.errors import DataError
from modhook_tasks.data.progress import progress

ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""


@attrs.frozen
class Remote:
    """A file that is published at an address, with its SHA-256."""

    name: str
    url: str
    sha256: str


def cache_folder(task: str) -> Path:
    """Return where a task's data are kept: in `$MODHOOK_CACHE`, or else the user's cache folder for modhook."""
    root = os.environ.get("MODHOOK_CACHE")
    if root:
        return Path(root).expanduser() / task
    import pooch

    return Path(pooch.os_cache("modhook")) / task


def fetch(remote: Remote, folder: Path, otherwise: str) -> Path:
    """Return the file in `folder`, downloaded unless it is there with the right checksum.

    A broken transfer goes on where it stopped, here and in a later call. `otherwise` ends the error's sentence: what a
    user without a connection can do.

    Raises:
        DataError: not reachable, or another checksum; then the file is kept beside, as `NAME.damaged`.
    """
    import pooch

    target = folder / remote.name
    try:
        if target.exists():
            _verify(remote, target)
            return target
        folder.mkdir(parents=True, exist_ok=True)
        pooch.get_logger().setLevel("WARNING")
        found = pooch.retrieve(
            remote.url,
            known_hash=f"sha256:{remote.sha256}",
            fname=remote.name,
            path=folder,
            downloader=_Resuming(remote, folder, otherwise),
        )
    except OSError as error:
        raise DataError(
            f"{remote.name} cannot be kept in {folder} ({error.strerror or error}); set MODHOOK_CACHE to another folder."
        ) from error
    return Path(found)


@attrs.frozen
class _Resuming:
    """A downloader for pooch that keeps what it has in `NAME.part` and asks for the rest."""

    remote: Remote
    folder: Path
    otherwise: str

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file`."""
        import requests

        part = self.folder / f"{self.remote.name}.part"
        for attempt in range(ATTEMPTS):
            try:
                _append(url, part)
                break
            except requests.RequestException as error:
                final = isinstance(error, requests.HTTPError) or attempt == ATTEMPTS - 1
                if final:
                    raise DataError(
                        f"{self.remote.name} is missing and cannot be downloaded from {url} ({_reason(error)}); "
                        f"put it into {self.folder} by hand, {self.otherwise}."
                    ) from error
                time.sleep(PAUSE * 2**attempt)
        _verify(self.remote, part)
        part.replace(output_file)


def _append(url: str, part: Path) -> None:
    """Add to `part` what it lacks; a server that cannot send a rest sends everything."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # there is no rest: the checksum decides
        answer.raise_for_status()
        rest = answer.status_code == requests.codes.partial_content
        size = answer.headers.get("Content-Length")
        total = int(size) + (have if rest else 0) if size else None
        with part.open("ab" if rest else "wb") as file, progress(f"downloading {part.stem}", DownloadColumn()) as bar:
            task = bar.add_task("", total=total, completed=have if rest else 0)
            for piece in answer.iter_content(1 << 16):
                file.write(piece)
                bar.advance(task, len(piece))


def _verify(remote: Remote, path: Path) -> None:
    """Raise `DataError` and put the file aside if its checksum is another one."""
    import pooch

    if (found := pooch.file_hash(str(path))) != remote.sha256:
        aside = path.with_name(f"{remote.name}.damaged")
        path.replace(aside)
        raise DataError(
            f"{remote.name} is damaged: its SHA-256 is {found[:12]}... and not {remote.sha256[:12]}...; it was put aside as "
            f"{aside}, and the next run downloads {remote.url} again."
        )


def _reason(error: Exception) -> str:
    """Return a library's long message in a few words."""
    answer = getattr(error, "response", None)
    return f"HTTP {answer.status_code}" if answer is not None else type(error).__name__
