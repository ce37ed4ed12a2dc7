"""The local cloud's own controls, on a loopback port of their own: where it is, what time it is there, and moving time.

    GET  /          the addresses
    GET  /clock     {"now": "…", "speed": 60.0}
    POST /clock     {"advance_s": 3600} or {"speed": 60}; answers as GET

AWS has no such thing, so it is kept apart from the AWS API and from the gateway. `perch` finds it through `cloud.json`
in the state folder, which is there exactly as long as the local cloud is.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from perch.domain.codec import iso
from perch.local.clock import VirtualClock

FILE = "cloud.json"


class Control:
    """The small server; `start` gives its URL and writes the file, `stop` takes both away."""

    def __init__(
        self, clock: VirtualClock, advance: Callable[[float], None], addresses: dict[str, str], state: Path
    ) -> None:
        self._clock = clock
        self._advance = advance
        self._addresses = addresses
        self._file = state / FILE
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Open a free port and tell the world in `cloud.json`."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, name="perch-control", daemon=True).start()
        url = f"http://localhost:{self._server.server_port}"
        self._addresses = {**self._addresses, "control_url": url}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({**self._addresses, "pid": os.getpid()}, indent=1))
        return url

    def stop(self) -> None:
        """Close the port and remove the file, if it is still ours."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        if self._file.exists() and json.loads(self._file.read_text()).get("pid") == os.getpid():
            self._file.unlink()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Answer one request with a status and a JSON document."""
        if (method, path) == ("GET", "/"):
            return 200, self._addresses
        if path != "/clock":
            return 404, {"error": f"there is no {path}; there are / and /clock"}
        if method == "POST":
            try:
                wanted = json.loads(body)
                if "speed" in wanted:
                    self._clock.speed = float(wanted["speed"])
                if "advance_s" in wanted:
                    self._advance(float(wanted["advance_s"]))
            except (ValueError, TypeError) as error:
                return 400, {"error": f'send {{"advance_s": seconds}} or {{"speed": factor}}: {error}'}
            except RuntimeError as error:
                return 409, {"error": str(error)}
        return 200, {"now": iso(self._clock.now()), "speed": self._clock.speed, "running": self._clock.running}


def _handler(control: Control) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self._reply("POST")

        def _reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = control.answer(method, self.path, body)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing: the terminal belongs to the user."""

    return Handler
