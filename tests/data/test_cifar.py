"""CIFAR-10's binary files: real ones where they are, damaged ones, the wrong version."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from modhook.errors import DataError
from modhook_tasks.data import cifar


def write(folder: Path, count: int = 3) -> np.ndarray:
    """Write six small files in the binary format; return all records (6 x count, 3073)."""
    random = np.random.default_rng(0)
    records = random.integers(0, 256, (6, count, 3073), np.uint8)
    records[:, :, 0] %= 10
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(cifar.TRAIN + cifar.TEST, records, strict=True):
        (folder / name).write_bytes(part.tobytes())
    return records.reshape(-1, 3073)


def archive(folder: Path) -> bytes:
    """Return the folder as the official archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder, cifar.FOLDER)
    return out.getvalue()


def test_a_folder_the_one_above_and_an_archive_are_read(tmp_path: Path) -> None:
    """Labels and colour planes come back as written, file after file."""
    records = write(tmp_path / cifar.FOLDER)
    (tmp_path / "x.tar.gz").write_bytes(archive(tmp_path / cifar.FOLDER))
    for place in (tmp_path, tmp_path / cifar.FOLDER, tmp_path / "x.tar.gz"):
        images = cifar.from_folder(place, cifar.TRAIN)
        assert images.labels.tolist() == records[:15, 0].tolist()
        assert (images.pixels.numpy().reshape(15, -1) == records[:15, 1:]).all()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """No folder, the pickles, a cut file, another data set, an archive that is cut or holds no such file."""
    folder = tmp_path / "f"
    with pytest.raises(DataError, match="is neither a folder nor an archive"):
        cifar.from_folder(folder, cifar.TEST)
    folder.mkdir()
    (folder / "data_batch_1").touch()
    with pytest.raises(
        DataError, match=r"lacks test_batch\.bin; these are the files of the Python version, which are pickles"
    ):
        cifar.from_folder(folder, cifar.TEST)
    write(folder)
    whole = archive(folder)
    (folder / "test_batch.bin").write_bytes(bytes(3072))
    with pytest.raises(DataError, match="no multiple of 3073"):
        cifar.from_folder(folder, cifar.TEST)
    (folder / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match="holds the label 10"):
        cifar.from_folder(folder, cifar.TEST)
    (tmp_path / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is no readable archive"):
        cifar.from_folder(tmp_path / "a", cifar.TEST)
    with tarfile.open(tmp_path / "b", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"has no file .*test_batch\.bin"):
        cifar.from_folder(tmp_path / "b", cifar.TEST)


def test_the_archive_is_downloaded_once(web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server to tensors; a second call needs no server."""
    records = write(tmp_path / "f")
    body = archive(tmp_path / "f")
    web.files[cifar.ARCHIVE.name] = body
    own = cifar.Remote(cifar.ARCHIVE.name, web.address + cifar.ARCHIVE.name, hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(cifar, "ARCHIVE", own)
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path / "cache"))
    assert cifar.official(cifar.TEST).labels.tolist() == records[15:, 0].tolist()
    web.files.clear()
    assert cifar.official(cifar.TEST).labels.tolist() == records[15:, 0].tolist()


def test_the_real_images(official: Path) -> None:
    """50,000 and 10,000 images, as many of each class; mean colour as the literature gives it (the files are lossy)."""
    train, test = (cifar.from_folder(official, files) for files in (cifar.TRAIN, cifar.TEST))
    assert (len(train.labels), len(test.labels)) == (50_000, 10_000)
    assert torch.bincount(train.labels.long()).tolist() == [5_000] * 10
    assert (train.normalisation()[0] / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.005)
