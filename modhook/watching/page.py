"""Watching on a page: a small server on this machine alone. The page renews itself, loads nothing else, and works without scripts."""

from __future__ import annotations

import functools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import jinja2
from markupsafe import Markup

from modhook.errors import ModhookError, UserError
from modhook.watching.state import Curve, Seen, Watcher
from modhook.watching.terminal import duration

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
_WIDTH, _HEIGHT = 220, 48


class Page:
    """Serves what a `Watcher` sees at `url`, from entering to leaving it. Raises `UserError` if the port is taken."""

    def __init__(self, watcher: Watcher, port: int = 0) -> None:
        self._watcher, self._lock = watcher, threading.Lock()
        self._last: Seen | None = None
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page._answer(self)

            def log_message(self, *arguments: Any) -> None:
                """Print nothing."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"no page can be served at port {port}: {error}; give another --port, or 0 for a free one."
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Page:
        threading.Thread(target=self._server.serve_forever, daemon=True, name="modhook-watch").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def look(self) -> Seen:
        """Return what there is to see now; several readers share one look."""
        with self._lock:
            self._last = self._watcher.look()
            return self._last

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        # A page elsewhere that lets its name point to this machine has another name.
        if request.headers.get("Host", "") not in (f"127.0.0.1:{self.port}", f"localhost:{self.port}"):
            return self._send(request, 403, "text/plain", "this page is for this machine.")
        path = request.path.partition("?")[0]
        if path == "/watch.js":
            return self._send(request, 200, "text/javascript", _file("watch.js"))
        if path not in ("/", "/now"):
            return self._send(request, 404, "text/plain", "there is nothing here.")
        try:
            seen, said = self.look(), ""
        except ModhookError as error:
            seen, said = Seen("", "", ()), str(error)
        return self._send(request, 200, "text/html", rendered(seen, whole=path == "/", said=said))

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, code: int, kind: str, text: str) -> None:
        data = text.encode("utf-8", errors="replace")
        try:
            request.send_response(code)
            request.send_header("Content-Type", f"{kind}; charset=utf-8")
            request.send_header("Content-Length", str(len(data)))
            request.send_header("Content-Security-Policy", _POLICY)
            request.send_header("Cache-Control", "no-store")
            request.end_headers()
            request.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # the reader has left
            return


def rendered(seen: Seen, *, whole: bool = True, said: str = "") -> str:
    """Return the page, or only what changes on it."""
    now = _template("now.html.j2").render(seen=seen, said=said, width=_WIDTH, height=_HEIGHT)
    if not whole:
        return now
    return _template("page.html.j2").render(now=Markup(now), name=seen.name or Path(seen.path).name)  # noqa: S704 - escaped above


def points(curve: Curve) -> str:
    """Return a curve as the points of an SVG line, over the steps, from its least to its largest value."""
    low, high = min(curve.values), max(curve.values)
    first, last = curve.steps[0], curve.steps[-1]
    across, up = max(1, last - first), (high - low) or 1.0
    every = max(1, len(curve.steps) // 200)
    chosen = list(zip(curve.steps, curve.values, strict=True))
    shown = [*chosen[::every], chosen[-1]]
    return " ".join(
        f"{2 + (s - first) / across * (_WIDTH - 4):.1f},{_HEIGHT - 2 - (v - low) / up * (_HEIGHT - 4):.1f}"
        for s, v in shown
    )


@functools.cache
def _template(name: str) -> jinja2.Template:
    """Return a template, compiled once: pages renew themselves every two seconds, also in the process that computes."""
    engine = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters.update(duration=duration, points=points)
    return engine.from_string(_file(name))


def _file(name: str) -> str:
    return files("modhook.watching").joinpath(name).read_text(encoding="utf-8")
