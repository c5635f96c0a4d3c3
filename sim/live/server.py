"""A page on this machine alone: what of a scene is on the ground, as it comes or as it came.

GET /                       the page
GET /state?after=N          what happened from the Nth event on, the clock and the counters, as JSON
GET /tile/ROW/COL/LAYERS    a tile as so many layers give it, as PNG
"""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from payload.errors import InputError
from sim.design.page import TEMPLATES, render

HOST = "127.0.0.1"
Answer = tuple[int, str, bytes]
NOT_FOUND: Answer = (404, "text/plain", b"not here\n")


class Show:
    """What a page shows. `state(after)` gives JSON's own types, `png(row, col, layers)` a picture or None."""

    def __init__(
        self, scene: dict[str, Any], live: bool, speed: float, state: Callable[[int], dict[str, Any]],
        png: Callable[[int, int, int], bytes | None],
    ) -> None:  # fmt: skip
        self.scene, self.live, self.speed, self.state, self.png = scene, live, speed, state, png

    def page(self) -> str:
        return render(TEMPLATES / "live.html", {"scene": self.scene, "live": self.live, "speed": self.speed})


class _Quiet(ThreadingHTTPServer):
    """A browser that goes away in the middle of an answer is no error to tell."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class LiveServer:
    """Serves one Show on 127.0.0.1. Port 0: any that is free. InputError where a port is taken."""

    def __init__(self, port: int = 0) -> None:
        self.show: Show | None = None
        try:
            self._http = _Quiet((HOST, port), _handler_of(self))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be had ({error}); choose another --port, or 0 for any") from None
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, target: str, host: str | None) -> Answer:
        """What a request gets. `host`: its header, so that no page of elsewhere reads this one under another name."""
        if host not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
            return 403, "text/plain", b"this page is for this machine\n"
        parts = urlsplit(target)
        if self.show is None:
            return 503, "text/plain", b"the payload is at work; nothing has been sent yet: try again\n"
        if parts.path == "/":
            return 200, "text/html; charset=utf-8", self.show.page().encode()
        if parts.path == "/state":
            text = json.dumps(self.show.state(_whole(parse_qs(parts.query).get("after", ["0"])[0])))
            return 200, "application/json", text.encode()
        tile = re.fullmatch(r"/tile/(\d{1,5})/(\d{1,5})/(\d{1,3})", parts.path)
        png = self.show.png(*map(int, tile.groups())) if tile else None
        return (200, "image/png", png) if png else NOT_FOUND


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else 0


def _handler_of(server: LiveServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "nadir", "", 30

        def do_GET(self) -> None:
            status, kind, body = server.answer(self.path, self.headers.get("Host"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: stderr is for progress."""

    return Handler
