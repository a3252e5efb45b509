"""A study that runs in seconds, a real S3 server in a process of its own, and ways to run modhook against both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

STUDY = """
[study]
name = "tiny"
seeds = {seeds}

[task]
name = "addmul"
train_size = 300
valid_size = 40

[model]
name = "fnn"
hidden = [6]

[train]
steps = 4
batch = 16

[masks]
steps = 3
samples = 2

[analyses]
{analyses}
"""
# moto speaks S3; the server is there as long as its input is open.
SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
BUCKET = "bucket"


class S3:
    """A running S3 server, and its content as another program sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def files(self, prefix: str) -> dict[str, bytes]:
        """Return the content of every object below a prefix, by its name below it."""
        return {k: self.client.get_object(Bucket=BUCKET, Key=f"{prefix}/{k}")["Body"].read() for k in self.names(prefix)}

    def names(self, prefix: str) -> set[str]:
        """Return the names of the objects below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix + "/")
        return {found["Key"].removeprefix(prefix + "/") for page in pages for found in page.get("Contents", ())}

    def put(self, key: str, content: bytes = b"x") -> None:
        """Write one object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own: what `modhook watch` reads of a cube that is on no disk lies where the run was begun."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The server; modhook finds it through the environment, as it finds any S3-compatible one."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = ""
    while not address.startswith("127."):
        address = process.stdout.readline().strip()
        assert address, "the S3 server did not start"
    server = S3("http://" + address.replace(" ", ":"))
    before = dict(os.environ)
    os.environ.update(server.environment)
    yield server
    os.environ.clear()
    os.environ.update(before)
    process.communicate("")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cubes that undisturbed runs make, of the first of two seeds, `half`, and of both, `whole`; do not change them."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.toml").write_text(STUDY.format(seeds=2, analyses="sharing = {}"))
    for out, only in (("half", ["--only", "seed=1"]), ("whole", [])):
        with pytest.raises(SystemExit) as stop:
            main(["run", str(folder / "tiny.toml"), "--out", str(folder / out), *only])
        assert stop.value.code == 0
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Write the study; returns its file."""

    def write(seeds: int = 2, analyses: str = "sharing = {}") -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(STUDY.format(seeds=seeds, analyses=analyses))
        return path

    return write


@pytest.fixture
def modhook_run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: returns exit code, output, errors."""
    from modhook.cli import main

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return run


@pytest.fixture
def local_files() -> Callable[[Path], dict[str, bytes]]:
    """Return the content of every file of a local cube, by its name."""
    return lambda cube: {str(f.relative_to(cube)): f.read_bytes() for f in sorted(cube.rglob("*")) if f.is_file()}
