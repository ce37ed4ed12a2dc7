"""The local cloud that `perch up` runs in another terminal, found through `.perch/local/cloud.json`.

The file is looked for in the current folder and above it, and believed only if the cloud that it names answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from perch.domain.codec import parse_time
from perch.domain.errors import NotFound, Refused

STATE = Path(".perch/local")
FILE = "cloud.json"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A local cloud that answers: its addresses and its process."""

    api_url: str
    gateway_url: str
    control_url: str
    pid: int

    def clock(self) -> dict[str, Any]:
        """Return `now` (ISO 8601), `speed` (virtual seconds a second) and `running`."""
        return _call(f"{self.control_url}/clock")

    def now(self) -> datetime:
        """Return the virtual time."""
        return parse_time(self.clock()["now"])

    def set_clock(self, **wanted: float) -> dict[str, Any]:
        """Move time (`advance_s`) or change its `speed`; answers as `clock`. Raises Refused."""
        return _call(f"{self.control_url}/clock", wanted)


def find_running(folder: Path | None = None) -> Running | None:
    """Return the local cloud that runs for a folder (default: the current one), or None."""
    for file in _files((folder or Path()).resolve()):
        try:
            told = json.loads(file.read_text())
            found = Running(**{name: told[name] for name in Running.__dataclass_fields__})
            answer = _call(found.control_url + "/", timeout_s=3)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # left behind by a cloud that was killed
        if answer.get("api_url") == found.api_url:
            return found
    return None


def require_running() -> Running:
    """Return the running local cloud. Raises NotFound, saying how to start one."""
    found = find_running()
    if found is None:
        raise NotFound(
            f"no local cloud runs here ({STATE / FILE} of this folder and those above it names none that answers); "
            "start one with `perch up` in another terminal"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    for place in (folder, *folder.parents):
        if (file := place / STATE / FILE).is_file():
            yield file


def _call(url: str, body: dict[str, float] | None = None, *, timeout_s: float = 600) -> dict[str, Any]:
    request = Request(url, data=json.dumps(body).encode() if body else None)  # noqa: S310 - a loopback URL of our own
    try:
        with urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
            document: dict[str, Any] = json.load(answer)
    except HTTPError as refused:
        told = json.loads(refused.read() or b"{}")
        raise Refused(told.get("error", f"the local cloud answered {refused.code}")) from refused
    return document
