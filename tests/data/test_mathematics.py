"""The official mathematics files, as archive and as folder: read once, and refused where they are not in order."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from modhook.errors import DataError
from modhook_tasks.mathematics import archive, data, folder
from modhook_tasks.mathematics.contents import ARCHIVE, FOLDER
from modhook_tasks.mathematics.index import Index
from modhook_tasks.mathematics.modules import MODULES, SETS

MODULE = MODULES["sort"]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mathematics"


@pytest.fixture
def files() -> dict[str, bytes]:
    """Text files by their path in the official folder: the module's, another's with other characters, what is no question."""
    made = {f"{name}/algebra__other.txt": b"Is @ ~?\nyes\n" for name in SETS}
    for number, path in enumerate(MODULE.files.values()):
        made[path] = "".join(f"Sort {number}, {i}.\n{i}, {number}\n" for i in range(20)).encode()
    return made | {"train-readme.txt": b"`not a question file`\n", "train-easy/._sort.txt": b"\0\5\26\7"}


def lay_out(place: Path, files: dict[str, bytes]) -> Path:
    """Write the files into a folder."""
    for name, text in files.items():
        (place / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (place / FOLDER / name).write_bytes(text)
    return place


def pack(place: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    """Write the files, then empty members as given, into an archive."""
    place.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place / ARCHIVE, "w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(text)
            made.addfile(member, io.BytesIO(text))
        for member in more:
            made.addfile(member)
    return place / ARCHIVE


def load(place: Path) -> Index:
    """Index the module from a place."""
    return data.from_place(place, MODULE, MODULE.files, 5)


def left(cache: Path) -> list[str]:
    """Return what is in the cache but its lock."""
    return sorted(p.name for p in cache.iterdir() if p.suffix != ".lock") if cache.is_dir() else []


def test_archive_and_folder_are_the_same(files, tmp_path: Path) -> None:
    """The archive, its folder and the folder above give equal data, and the characters of all files."""
    packed = load(pack(tmp_path / "a", files))
    assert packed.characters == "".join(sorted(set("Is @ ~?yesSort 0123456789,.")))
    for place in (lay_out(tmp_path / "b", files), tmp_path / "b" / FOLDER):
        found = load(place)
        assert (found.characters, found.train_sizes) == (packed.characters, packed.train_sizes)
        assert list(found.test) == list(packed.test) == list(SETS)
        for mine, other in [(found.train, packed.train), *((found.test[s], packed.test[s]) for s in SETS)]:
            assert {k: t.tolist() for k, t in mine.items()} == {k: t.tolist() for k, t in other.items()}


def test_texts_are_read_once(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start reads arrays alone; another module reads its texts, but no character set."""
    files |= dict.fromkeys(MODULES["collect"].files.values(), b"Is @?\nno\n" * 9 + b"x\ny\nz\na\n")
    files["train-medium/polynomials__collect.txt"] = b"1\n1\n2\n2\n"
    files["train-hard/polynomials__collect.txt"] = b"3\n1\n4\n2\n"
    files["interpolate/polynomials__collect.txt"] = b"5\n1\n"
    place = pack(tmp_path / "a", files)
    first = load(place)
    asked: list[str | None] = []
    original = archive.read

    def watched(path, wanted, characters):
        asked.append(characters)
        return original(path, wanted, characters)

    monkeypatch.setattr(archive, "read", watched)
    assert load(place).train["source"].tolist() == first.train["source"].tolist()
    assert asked == []
    other = data.from_place(place, MODULES["collect"], MODULES["collect"].files, 1)
    assert asked == [first.characters]
    assert other.characters == first.characters


def test_changed_files_are_read_again(files, tmp_path: Path) -> None:
    """The index belongs to the files as they were: a new text in an old folder is not answered from the cache."""
    place = lay_out(tmp_path, files)
    before = load(place)
    (place / FOLDER / MODULE.files["train-easy"]).write_bytes(b"".join(b"A %d?\n%d\n" % (i, i) for i in range(30)))
    after = load(place)
    assert before.train_sizes == (15, 15, 15)
    assert after.train_sizes == (25, 15, 15)
    assert "A" in after.characters


def test_without_the_archive_one_sentence_says_what_to_do(cache: Path) -> None:
    """Which file, where it goes, and the options that go another way; there is no address to ask."""
    with pytest.raises(DataError) as error:
        data.official(MODULE, MODULE.files, 5)
    for part in (f"{cache / ARCHIVE} is missing", 'task.source = "folder"', "task.folder", 'task.source = "generated"'):
        assert part in str(error.value)


def test_the_archive_in_the_cache_is_official(files, cache: Path) -> None:
    """Put where the message says, it is found."""
    pack(cache, files)
    assert data.official(MODULE, MODULE.files, 5).train_sizes == (15, 15, 15)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_a_cut_archive_is_refused(share: float, files, tmp_path: Path, cache: Path) -> None:
    """Cut anywhere, also where all members are whole and only the checksum is missing, it leaves nothing in the cache."""
    place = pack(tmp_path, files)
    whole = place.read_bytes()
    place.write_bytes(whole[: int(len(whole) * share)] if share < 0.9 else whole[:-4])
    with pytest.raises(DataError, match=r"is no readable archive .* get it again"):
        load(place)
    assert left(cache) == []


def test_a_changed_byte_is_noticed(files, tmp_path: Path, cache: Path) -> None:
    """The checksum at the archive's end is compared: here a text differs, and everything else is in order."""
    place = pack(tmp_path, files)
    plain = bytearray(gzip.decompress(place.read_bytes()))
    plain[plain.index(b"Sort 1, 3.") + 5] ^= 1
    wrong = bytearray(gzip.compress(bytes(plain)))
    wrong[-8:-4] = place.read_bytes()[-8:-4]  # the checksum of the right text
    place.write_bytes(wrong)
    with pytest.raises(DataError, match="is no readable archive"):
        load(place)
    assert left(cache) == []


def escaping() -> dict[str, tarfile.TarInfo]:
    """Return members that lead out of the folder in four ways."""
    up, absolute = tarfile.TarInfo(f"{FOLDER}/../../evil.txt"), tarfile.TarInfo("/tmp/evil.txt")
    link, device = tarfile.TarInfo(f"{FOLDER}/link"), tarfile.TarInfo(f"{FOLDER}/device")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../etc"
    device.type = tarfile.CHRTYPE
    return {"up": up, "absolute": absolute, "link": link, "device": device}


@pytest.mark.parametrize("way", escaping())
def test_an_archive_that_leads_outside_is_refused(way: str, files, tmp_path: Path, cache: Path) -> None:
    """Even as the last member, after all that is wanted: it is named, and nothing is extracted anywhere."""
    member = escaping()[way]
    place = pack(tmp_path / "down" / "there", files, member)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=f"its member '{member.name}' leads outside"):
        load(place)
    assert left(cache) == []
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before and not p.is_relative_to(cache.parent)] == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_missing_module_file_is_named(packed: bool, files, tmp_path: Path, cache: Path) -> None:
    """The path in the official folder, and what to name instead."""
    del files["train-hard/comparison__sort.txt"]
    with pytest.raises(DataError, match=rf"lacks train-hard/comparison__sort\.txt; name the folder {FOLDER}"):
        load((pack if packed else lay_out)(tmp_path, files))
    assert left(cache) == []


def test_a_wrong_folder_is_said(tmp_path: Path) -> None:
    """No folder at all, an empty one, and a file that is no archive."""
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty lacks train-easy/comparison__sort\.txt, train-medium"):
        load(tmp_path / "empty")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(DataError, match="text is no readable archive"):
        load(tmp_path / "text")


TEXTS = {
    "odd": (b"Sort 1.\n1\nSort 2.\n", "has 3 lines, but questions and answers come in turns"),
    "empty": (b"", "has 0 lines"),
    "empty line": (b"Sort 1.\n\n", "line 2 is empty"),
    "no ASCII": ("Sort é.\n1\n".encode(), "holds the byte"),
    "carriage returns": (b"Sort 1.\r\n1\r\n", "holds the byte"),
    "too few": (b"Sort 1.\n1\n", "1 different questions, too few to hold out 5; lower task.held_out"),
    "too long": (
        b"".join(b"Sort %d.\n1\n" % i for i in range(9)) + b"x" * 1001 + b"\n1\n",
        "a line of 1001 characters",
    ),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_not_in_order_is_refused(what: str, files, tmp_path: Path, cache: Path) -> None:
    """Each fault is one sentence, and leaves no half-made index."""
    text, words = TEXTS[what]
    files[MODULE.files["train-easy"]] = text
    with pytest.raises(DataError, match=words):
        load(lay_out(tmp_path / "f", files))
    assert left(cache) == []


def test_a_damaged_index_is_said(files, tmp_path: Path, cache: Path) -> None:
    """It is named, with the way out."""
    place = lay_out(tmp_path, files)
    load(place)
    (broken,) = cache.glob("sort-*/train.source.npy")
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"{broken.parent.name} cannot be read .* delete that folder"):
        load(place)


def test_the_readers_do_not_change_the_folder(files, tmp_path: Path) -> None:
    """A user's folder is read and never written to."""
    place = lay_out(tmp_path / "f", files)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*")}
    load(place)
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*")} == before
    assert folder.find(place) == place / FOLDER
