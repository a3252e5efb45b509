"""Permuted MNIST: permutations, split, normalisation, options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import modhook
from modhook_tasks import images as image_tasks
from modhook_tasks.permuted_mnist import PermutedMNIST, PermutedMNISTOptions, permutation


@pytest.fixture(scope="module")
def task() -> PermutedMNIST:
    """Return the task with made-up images and three permutations."""
    task = PermutedMNIST(PermutedMNISTOptions(permutations=3, source="generated"))
    task.load()
    return task


def test_stages_and_splits(task: PermutedMNIST) -> None:
    """One split per stage, the identity first; the paper has eleven."""
    assert [s.name for s in task.stages] == ["control", "permutation1", "permutation2"]
    assert task.splits == ("permutation0", "permutation1", "permutation2")
    assert PermutedMNISTOptions().permutations == 11
    assert dict(task.shape()) == {"inputs": 784, "outputs": 10}


def test_pixels_are_shuffled_as_published(task: PermutedMNIST) -> None:
    """Pixel i of function p is pixel RandomState(p).permutation(784)[i] of the image, in training and validation."""
    for number in (1, 2):
        order = np.random.RandomState(number).permutation(784)
        for plain, shuffled in (
            (task.train_set("control"), task.train_set(f"permutation{number}")),
            (task.test_set("permutation0"), task.test_set(f"permutation{number}")),
        ):
            expected = plain["image"].numpy().reshape(-1, 784)[:, order]
            assert (shuffled["image"].numpy().reshape(-1, 784) == expected).all()
            assert torch.equal(plain["label"], shuffled["label"])
    assert torch.equal(permutation(0), torch.arange(784))


def test_split_is_the_published_one() -> None:
    """Of 60,000 images 48,017 are for training, of 50,000 40,053; no image is in both parts, none is lost."""
    for count, expected in ((60_000, 48_017), (50_000, 40_053)):
        pixels = torch.arange(count).view(-1, 1, 1, 1)
        train, valid = image_tasks.split(image_tasks.Images(pixels, torch.arange(count)))
        assert len(train.labels) == expected
        assert torch.equal(torch.cat([train.labels, valid.labels]).sort().values, torch.arange(count))


def test_inputs_are_normalised(task: PermutedMNIST) -> None:
    """Over training and validation images together, the pixels have mean 0 and deviation 1."""
    parts = [task.train_set(None), task.test_set("permutation0")]
    prepared = [task.prepare(p, np.random.default_rng(0), True) for p in parts]
    pixels = torch.cat([p["image"].double() for p in prepared])
    assert pixels.shape[1:] == (784,)
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std()) == pytest.approx(1, abs=1e-5)
    assert prepared[0]["label"].dtype == torch.int64


def test_loss_and_score(task: PermutedMNIST) -> None:
    """Mean cross-entropy, and one number per image that says whether the largest logit is the label's."""
    batch = {"image": torch.zeros(3, 784), "label": torch.tensor([1, 2, 0])}
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0], [5.0, 0.0, 0.0]], dtype=torch.float64)
    expected = -sum(float(row.softmax(-1)[label].log()) for row, label in zip(logits, batch["label"], strict=True)) / 3
    assert float(task.loss(lambda _: logits, batch)) == pytest.approx(expected)
    assert task.score(lambda _: logits, batch)["accuracy"].tolist() == [1.0, 0.0, 1.0]


def test_unknown_names_and_folders_are_refused(task: PermutedMNIST, tmp_path: Path) -> None:
    """A stage that the study lacks, a folder without a source, a source without its folder."""
    with pytest.raises(modhook.UserError, match="unknown permutation 'permutation3'; this study has permutation0,"):
        task.test_set("permutation3")
    with pytest.raises(modhook.UserError, match="folder is not set"):
        PermutedMNISTOptions(source="folder")
    with pytest.raises(modhook.UserError, match="set source to 'folder'"):
        PermutedMNISTOptions(folder=str(tmp_path))


def test_absent_data_are_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`modhook run` ends with exit code 2 and one sentence, before a cube is made."""
    from modhook.cli import main

    (tmp_path / "study.toml").write_text(
        '[study]\nname = "absent"\n[task]\nname = "permuted_mnist"\nsource = "folder"\nfolder = "nowhere"\n'
        '[model]\nname = "fnn"\n[train]\nsteps = 1\n[masks]\nsteps = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["run", "study.toml", "--out", "out"])
    assert stop.value.code == 2
    assert "task.folder nowhere is no folder" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
