"""A web server on this machine, and the real images in the official formats where they are."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

SHARED = Path(__file__).parents[3] / "shared"


@attrs.define
class Web:
    """What the server serves (`files`), how, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = attrs.field(factory=dict)
    cut: int | None = None
    """Send so many bytes of the next answer, promise all of them, and hang up."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = attrs.field(factory=list)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Serve files from memory on 127.0.0.1; no proxy is in between."""
    monkeypatch.setenv("NO_PROXY", "*")
    state = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            body = state.files.get(self.path.removeprefix("/"))
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start >= len(body) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            stop = len(body) if state.cut is None else start + state.cut
            state.cut = None
            self.wfile.write(body[start:stop])

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with real images in the official formats (`mnist`, `cifar-10-batches-bin`); skip where there are none."""
    tool = SHARED / "tools" / "official_layout.py"
    if not tool.exists():
        pytest.skip("the real images are not on this machine")
    pytest.importorskip("PIL", reason="Pillow is missing, which writes the real images in the official formats")
    folder = tmp_path_factory.mktemp("official")
    subprocess.run([sys.executable, str(tool), str(folder)], check=True, capture_output=True)
    return folder
