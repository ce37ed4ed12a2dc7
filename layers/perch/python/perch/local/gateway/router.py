"""Which route of an HTTP API serves a request, by API Gateway's rules.

The most specific match wins: a full match of the path, then a greedy `{proxy+}` at its end, then `$default`. Among full
matches a literal segment beats a variable, from left to right; among greedy ones the longer prefix wins; on one path
the method's own route comes before `ANY`. Paths are matched with their case and their trailing slash, after
percent-decoding; a variable takes exactly one segment that is not empty, a greedy one takes the rest, at least one.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from perch.local.ports import Route


@dataclass(frozen=True, kw_only=True)
class Match:
    """A route and the values of its path variables."""

    route: Route
    parameters: dict[str, str]


@dataclass(frozen=True)
class _Pattern:
    route: Route
    segments: tuple[str, ...]
    greedy: str | None

    def rank(self) -> tuple[object, ...]:
        """Sort key: the most specific first."""
        return (
            self.greedy is not None,
            tuple(segment.startswith("{") for segment in self.segments) if self.greedy is None else (),
            -len(self.segments),
            tuple(segment.startswith("{") for segment in self.segments),
            self.route.method == "ANY",
        )

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """Return the path variables if the pattern matches."""
        fixed = len(self.segments)
        if len(segments) < fixed + 1 if self.greedy is not None else len(segments) != fixed:
            return None
        found: dict[str, str] = {}
        for pattern, segment in zip(self.segments, segments, strict=False):
            if pattern.startswith("{") and pattern.endswith("}"):
                if not segment:
                    return None
                found[pattern[1:-1]] = unquote(segment)
            elif pattern != unquote(segment):
                return None
        if self.greedy is not None:
            rest = "/".join(segments[fixed:])
            if not rest:
                return None
            found[self.greedy] = unquote(rest)
        return found


class Router:
    """The routes of one generation, ready to match."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        """Sort the routes by how specific they are."""
        self._default = next((route for route in routes if not route.path), None)
        self._literal: dict[str, dict[str, Match]] = {}
        patterns = []
        for route in routes:
            if not route.path:
                continue
            if "{" not in route.path:
                self._literal.setdefault(route.path, {})[route.method] = Match(route=route, parameters={})
            segments = route.path.split("/")[1:]
            greedy = segments.pop()[1:-2] if segments[-1].endswith("+}") else None
            patterns.append(_Pattern(route, tuple(segments), greedy))
        self._patterns = sorted(patterns, key=_Pattern.rank)

    def match(self, method: str, path: str) -> Match | None:
        """Find the route of a request.

        Args:
            method: As sent, in capitals.
            path: As sent, still percent-encoded, without the query.
        """
        literal = self._literal.get(path)  # the usual case, in one look-up; a literal path is the most specific
        if literal is not None:
            found = literal.get(method) or literal.get("ANY")
            if found is not None:
                return found
        segments = path.split("/")[1:]
        for pattern in self._patterns:
            if pattern.route.method in (method, "ANY"):
                parameters = pattern.match(segments)
                if parameters is not None:
                    return Match(route=pattern.route, parameters=parameters)
        return None if self._default is None else Match(route=self._default, parameters={})
