"""Downloads, from a server on this machine: checksum, resume, damaged files, no connection."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modhook.errors import DataError
from modhook_tasks.data import fetch as fetching
from modhook_tasks.data.fetch import Remote, cache_folder, fetch

BODY = bytes(range(256)) * 4_000
OTHERWISE = "or do something else"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


def remote(web, body: bytes = BODY) -> Remote:
    """Return a remote file with BODY's checksum."""
    web.files["numbers.bin"] = body
    return Remote("numbers.bin", f"{web.address}numbers.bin", hashlib.sha256(BODY).hexdigest())


def test_a_file_is_downloaded_once(web, tmp_path: Path) -> None:
    """The second call takes the file from the cache, and asks nobody."""
    wanted = remote(web)
    path = fetch(wanted, tmp_path / "cache", OTHERWISE)
    assert path.read_bytes() == BODY
    assert fetch(wanted, tmp_path / "cache", OTHERWISE) == path
    assert len(web.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["numbers.bin"]


def test_a_broken_transfer_goes_on_where_it_stopped(web, tmp_path: Path) -> None:
    """After a hang-up only the rest is asked for, counted in whole pieces of 64 KiB."""
    web.cut = 300_000
    assert fetch(remote(web), tmp_path, OTHERWISE).read_bytes() == BODY
    assert web.asked == [("/numbers.bin", None), ("/numbers.bin", f"bytes={4 << 16}-")]


def test_a_server_that_sends_no_rest_sends_everything(web, tmp_path: Path) -> None:
    """The beginning is then not doubled."""
    web.cut, web.ranges = 300_000, False
    assert fetch(remote(web), tmp_path, OTHERWISE).read_bytes() == BODY


def test_what_an_earlier_run_left_is_used(web, tmp_path: Path) -> None:
    """A part that a killed run left is completed; a whole one is only checked."""
    (tmp_path / "numbers.bin.part").write_bytes(BODY[:1000])
    fetch(remote(web), tmp_path, OTHERWISE)
    assert web.asked == [("/numbers.bin", "bytes=1000-")]
    (tmp_path / "numbers.bin").replace(tmp_path / "numbers.bin.part")
    assert fetch(remote(web), tmp_path, OTHERWISE).read_bytes() == BODY


def test_a_damaged_file_is_put_aside_and_fetched_again(web, tmp_path: Path) -> None:
    """A wrong checksum is an error that names both, keeps the file, and does not stand in the way of the next run."""
    wanted = remote(web, b"something else")
    with pytest.raises(DataError, match=r"numbers\.bin is damaged: its SHA-256 is .* put aside .* downloads .* again"):
        fetch(wanted, tmp_path, OTHERWISE)
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.bin.damaged"]
    assert (tmp_path / "numbers.bin.damaged").read_bytes() == b"something else"
    remote(web)
    assert fetch(wanted, tmp_path, OTHERWISE).read_bytes() == BODY


def test_a_damaged_file_in_the_cache_is_found(web, tmp_path: Path) -> None:
    """A file that went bad after its download is not read."""
    wanted = remote(web)
    (tmp_path / "numbers.bin").write_bytes(BODY[:-1])
    with pytest.raises(DataError, match="is damaged"):
        fetch(wanted, tmp_path, OTHERWISE)
    assert fetch(wanted, tmp_path, OTHERWISE).read_bytes() == BODY


def test_without_a_connection_one_sentence_says_what_to_do(web, tmp_path: Path) -> None:
    """What is missing, its address, where to put it by hand, and the alternatives; a missing page is asked for once."""
    gone = Remote("gone.bin", f"{web.address}gone.bin", "0" * 64)
    with pytest.raises(DataError) as error:
        fetch(gone, tmp_path, OTHERWISE)
    assert str(error.value) == (
        f"gone.bin is missing and cannot be downloaded from {web.address}gone.bin (HTTP 404); put it into {tmp_path} by "
        f"hand, {OTHERWISE}."
    )
    assert len(web.asked) == 1
    nobody = Remote("gone.bin", "http://127.0.0.1:9/gone.bin", "0" * 64)
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(nobody, tmp_path, OTHERWISE)


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MODHOOK_CACHE names the folder; without it, the system's cache folder is used."""
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path))
    assert cache_folder("mnist") == tmp_path / "mnist"
    monkeypatch.delenv("MODHOOK_CACHE")
    assert "modhook" in str(cache_folder("mnist"))


def test_a_cache_that_cannot_be_written_is_said(web, tmp_path: Path) -> None:
    """A file in the place of the folder is no traceback."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="MODHOOK_CACHE"):
        fetch(remote(web), tmp_path / "taken", OTHERWISE)
