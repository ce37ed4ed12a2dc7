"""Trouble with AWS, made at will: calls that are refused, fail, or get lost, drivers that die, and others that cut in.

`Trouble` hangs in botocore's own events, so everything above it is the real thing. It strikes only while it is
`at_work`: what a test looks at by the same clients goes undisturbed.

    fail     one operation, for a number of calls: throttled, denied, an error before anything was done, or an answer
             that is lost although AWS carried the call out
    kill     the process is gone right after its n-th call
    cut in   somebody else does something right before the n-th call
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from botocore.exceptions import ClientError, ReadTimeoutError

from perch.aws.clients import Clients

SERVICES = {
    "lambda_": (
        "GetAlias", "GetFunctionConfiguration", "UpdateAlias", "UpdateFunctionConfiguration", "PublishVersion",
        "Invoke", "CreateAlias",
    ),
    "cloudwatch": ("DescribeAlarms", "PutMetricAlarm", "DeleteAlarms", "GetMetricData"),
    "dynamodb": (
        "TransactGetItems", "TransactWriteItems", "GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem",
    ),
    "events": ("PutEvents",),
}  # fmt: skip
OPERATIONS = tuple(operation for operations in SERVICES.values() for operation in operations)
THROTTLED, DENIED, FAILED, LOST = "throttled", "denied", "failed", "lost"
WAYS = (THROTTLED, DENIED, FAILED, LOST)
_CODES = {THROTTLED: ("ThrottlingException", 400), DENIED: ("AccessDeniedException", 403), FAILED: ("Internal", 500)}


class Killed(BaseException):
    """The process is gone; nothing catches this."""


def refusal(way: str, operation: str) -> Exception:
    """Return what boto3 raises for a call that went wrong in this way."""
    if way == LOST:
        return ReadTimeoutError(endpoint_url="https://aws")
    code, status = _CODES[way]
    response = {"Error": {"Code": code, "Message": way}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)  # type: ignore[arg-type]


@dataclass
class Trouble:
    """What goes wrong; `calls` are the operations since `at_work` began, and `struck` says whether anything did."""

    failing: tuple[str, str] | None = None  # operation and way
    failures_left: int = 0
    fails_at: tuple[int, str] | None = None  # number of the call and way
    dies_after: int | None = None
    cuts_in: tuple[int, Callable[[], object]] | None = None
    calls: list[str] = field(default_factory=list)
    struck: bool = False
    _armed: bool = False

    def watch(self, clients: Clients) -> None:
        """Hang in the events of every service."""
        for service in SERVICES:
            events = getattr(clients, service).meta.events
            events.register("before-call.*.*", self._before)
            events.register("after-call.*.*", self._after)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Strike for a while; a kill ends it, as it would end a process. What was for this while only is over then."""
        self._armed, self.calls, self.struck = True, [], False
        try:
            with suppress(Killed):
                yield
        finally:
            self._armed, self.dies_after, self.cuts_in, self.fails_at = False, None, None, None

    def _before(self, model, **_) -> None:
        if not self._armed:
            return
        if self.cuts_in and self.cuts_in[0] <= len(self.calls):
            other, self.cuts_in, self.struck = self.cuts_in[1], None, True
            other()
        way = self._way(model.name)
        if way and way != LOST:
            self.calls.append(model.name)
            raise self._strike(way, model.name)

    def _after(self, model, **_) -> None:
        if not self._armed:
            return
        lost = self._way(model.name) == LOST
        self.calls.append(model.name)
        if lost:
            raise self._strike(LOST, model.name)
        if self.dies_after is not None and len(self.calls) >= self.dies_after:
            self.dies_after, self.struck, self._armed = None, True, False
            raise Killed

    def _way(self, operation: str) -> str | None:
        if self.fails_at and self.fails_at[0] == len(self.calls):
            return self.fails_at[1]
        return self.failing[1] if self.failing and self.failing[0] == operation else None

    def _strike(self, way: str, operation: str) -> Exception:
        self.struck = True
        if self.fails_at and self.fails_at[0] <= len(self.calls):
            self.fails_at = None
        elif self.failures_left:
            self.failures_left -= 1
            self.failing = self.failing if self.failures_left else None
        return refusal(way, operation)
