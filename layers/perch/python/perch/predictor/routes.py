"""Which operation a path asks for. Every path of a revision is known at init, so finding one is one look into a table.

    /models/{endpoint}                    GET described
    /models/{endpoint}/predict            POST predict                    ours
    /models/{endpoint}/invocations        POST invocations                MLflow's scoring server
    /v2/models/{endpoint}[/versions/{v}]  GET metadata · /ready GET · /infer POST      Open Inference Protocol
    /v2 · /v2/health/… · /v2/models · /v2/repository/index · /openapi.json
    /invocations · /ping · /health · /version     where the endpoint is alone: a Function URL, a container

A stage or a base path may come before it (any but `models` and `v2`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import RequestRefused


class Route(NamedTuple):
    """An operation, the method that it takes, and the model version that its path names, if any."""

    operation: str
    method: str
    version: str | None = None


INFERENCE = frozenset({"predict", "invocations", "infer"})
"""Operations that run the model."""


class Routes:
    """The paths of one revision."""

    def __init__(self, endpoint: str, versions: Sequence[str]) -> None:
        """Make the table for an endpoint that serves these model versions (none: it has no model)."""
        ours, v2 = f"/models/{endpoint}", f"/v2/models/{endpoint}"
        self._base, self._v2, self._versions = ours, v2, versions
        self._versioned = re.compile(rf"{re.escape(v2)}/versions/([^/]+)(|/ready|/infer)$")
        self._table: dict[str, Route] = {
            ours: Route("described", "GET"),
            f"{ours}/predict": Route("predict", "POST"),
            f"{ours}/invocations": Route("invocations", "POST"),
            "/v2": Route("server", "GET"),
            "/v2/health/live": Route("live", "GET"),
            "/v2/health/ready": Route("server_ready", "GET"),
            "/v2/models": Route("models", "GET"),
            "/v2/repository/index": Route("index", "POST"),
            "/invocations": Route("invocations", "POST"),
            "/ping": Route("ping", "GET"),
            "/health": Route("ping", "GET"),
            "/version": Route("version", "GET"),
            "/openapi.json": Route("openapi", "GET"),
        }
        for prefix, version in [(v2, None), *((f"{v2}/versions/{version}", version) for version in versions)]:
            self._table[prefix] = Route("metadata", "GET", version)
            self._table[f"{prefix}/ready"] = Route("ready", "GET", version)
            self._table[f"{prefix}/infer"] = Route("infer", "POST", version)

    def find(self, event: Mapping[str, Any]) -> Route:
        """Return what an event asks for.

        Raises:
            RequestRefused: 400 (no HTTP API event), 404 (another path), 405 (another method).
        """
        try:
            http = event["requestContext"]["http"]
            method, path = http["method"], http["path"]
        except (KeyError, TypeError) as error:
            raise RequestRefused(400, "the event is not an HTTP API request (payload format 2.0)") from error
        route = self._table.get(path) or self._behind_a_prefix(path)
        if route is None and not self._versions and (asked := self._versioned.search(path)) is not None:
            route = self._table[self._v2 + asked[2]]  # there is no model, whatever its version
        if route is None:
            raise RequestRefused(404, self._unknown(path))
        if method != route.method:
            raise RequestRefused(405, f"{path[:100]!a} takes {route.method}", allow=route.method)
        return route

    def _behind_a_prefix(self, path: str) -> Route | None:
        """Look without the first segments of a path, as far as they can be a stage or a base path."""
        if not path.startswith(("/models/", "/v2/")) and (slash := path.find("/", 1)) > 0:
            rest = path[slash:]
            return self._table.get(rest) or self._behind_a_prefix(rest)
        return None

    def _unknown(self, path: str) -> str:
        if (asked := self._versioned.search(path)) is not None and self._versions:
            served = " and ".join(self._versions)
            return f"version {asked[1][:64]!a} is not served by this revision; {served} is"
        base = self._base
        return (
            f"there is no {path[:100]!a} here; GET {base}, POST {base}/predict, POST {base}/invocations, "
            f"GET /v2{base}, GET /v2{base}/ready and POST /v2{base}/infer are answered"
        )


def is_protocols(event: Mapping[str, Any]) -> bool:
    """Whether an event asks in the Open Inference Protocol, whose errors are one sentence and nothing else."""
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, dict) else None
    path = http.get("path") if isinstance(http, dict) else None
    return isinstance(path, str) and ("/v2/" in path or path.endswith("/v2"))
