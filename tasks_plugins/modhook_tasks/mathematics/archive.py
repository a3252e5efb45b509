"""Reads the official archive, in one pass and without unpacking it onto the disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from rich.progress import DownloadColumn

from modhook.errors import DataError
from modhook_tasks.data.progress import progress
from modhook_tasks.mathematics.contents import Characters, Contents, lacks
from modhook_tasks.mathematics.modules import SETS


def read(path: Path, files: Mapping[str, str], characters: str | None) -> Contents:
    """Return the texts of `files` ({set: path}); the characters of all files are read unless they are known.

    The whole archive is read in any case: its checksum is at its end, and so may be a member that gives it away.

    Raises:
        DataError: damaged or cut off, a member outside the archive's own folder, or a file that is missing.
    """
    wanted = {name: found for found, name in files.items()}
    texts: dict[str, bytes] = {}
    seen = Characters()
    try:
        with (
            path.open("rb") as raw,
            gzip.GzipFile(fileobj=raw) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
            progress(f"reading {path.name}", DownloadColumn()) as bar,
        ):
            task = bar.add_task("", total=path.stat().st_size)
            for member in archive:
                _inside(member, path)
                bar.update(task, completed=raw.tell())
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if not member.isfile() or not name.endswith(".txt") or not name.startswith(SETS) or "/." in name:
                    continue
                if characters is not None and name not in wanted:
                    continue
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                text = content.read()
                seen.add(text, f"{name} in {path}")
                if name in wanted:
                    texts[wanted[name]] = text
            while stream.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path} is no readable archive ({error}): it is cut off, damaged or another file; get it again."
        ) from error
    if missing := [name for found, name in files.items() if found not in texts]:
        raise lacks(str(path), missing)
    return Contents(texts, seen.sorted() if characters is None else characters)


def _inside(member: tarfile.TarInfo, path: Path) -> None:
    """Refuse a member that an extraction would put outside its folder, and what is no file, folder or link within."""
    try:
        tarfile.data_filter(member, str(path.parent))
        safe = not PurePosixPath(member.name).is_absolute()
    except tarfile.FilterError:
        safe = False
    if not safe:
        raise DataError(
            f"{path} is not to be trusted: its member {member.name!r} leads outside the archive's folder; nothing was "
            "extracted. Get the archive from its authors again."
        )
