"""CIFAR-10 in its official *binary* version: per image one label byte and 3,072 bytes, planes red, green, blue.

The Python version of the same archive is pickles, which can run code when they are read; it is refused.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from modhook.errors import DataError
from modhook_tasks.data.fetch import Remote, cache_folder, fetch
from modhook_tasks.images import Images

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32
_OTHERWISE = 'or name a folder or archive that has the binary version (task.source = "folder", task.folder)'


def official(files: Sequence[str]) -> Images:
    """Return the images of some files of the official archive, downloaded where it is not in the cache. Raises `DataError`."""
    return _from_archive(fetch(ARCHIVE, cache_folder("cifar10"), _OTHERWISE), files)


def from_folder(place: Path, files: Sequence[str]) -> Images:
    """Return the images of some files in a folder with the binary version, the folder above it, or the archive. Raises `DataError`."""
    if place.is_file():
        return _from_archive(place, files)
    folder = place / FOLDER if (place / FOLDER).is_dir() else place
    if not folder.is_dir():
        raise DataError(f"task.folder {place} is neither a folder nor an archive; name the one that holds {FOLDER}.")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        python = any((f / "data_batch_1").exists() for f in (folder, folder / "cifar-10-batches-py"))
        hint = "; these are the files of the Python version, which are pickles and are not read" if python else ""
        raise DataError(
            f"{folder} lacks {', '.join(missing)}{hint}; name the folder with CIFAR-10's official binary version ({FOLDER})."
        )
    return _read(files, lambda name: (folder / name).read_bytes(), folder)


def _from_archive(path: Path, files: Sequence[str]) -> Images:
    """Read single members; nothing is unpacked onto the disk."""
    try:
        with tarfile.open(path) as archive:

            def member(name: str) -> bytes:
                found = archive.extractfile(f"{FOLDER}/{name}")
                if found is None:
                    raise KeyError(name)
                return found.read()

            return _read(files, member, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} is no readable archive ({error}); download it again.") from error
    except KeyError as error:
        raise DataError(
            f"{path} has no file {error.args[0]}; CIFAR-10's official binary archive is {ARCHIVE.name}."
        ) from error


def _read(files: Sequence[str], content: Callable[[str], bytes], where: Path) -> Images:
    records = []
    for name in files:
        raw = np.frombuffer(content(name), np.uint8)
        if raw.size == 0 or raw.size % _RECORD:
            raise DataError(
                f"{name} in {where} has {raw.size} bytes, no multiple of {_RECORD}; it is cut off or another format."
            )
        records.append(raw.reshape(-1, _RECORD))
    images = torch.from_numpy(np.concatenate(records))  # (N, 3073)
    labels = images[:, 0].clone()
    if int(labels.max()) >= len(CLASSES):
        raise DataError(f"{where} holds the label {int(labels.max())}, but CIFAR-10 has 0..9; is it CIFAR-100?")
    return Images(images[:, 1:].unflatten(1, (3, 32, 32)).contiguous(), labels)
