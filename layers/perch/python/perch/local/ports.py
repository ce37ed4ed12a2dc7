"""What the parts of the local cloud ask of each other.

The data plane (worker processes, the HTTP gateway) runs functions; the control plane (moto made strict) knows which
functions exist; the metric store, the log store and the event bus receive what running them leaves behind. Each part
sees only the small interfaces on this page, so each can be tested with the others left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """The one clock of a local cloud."""

    def now(self) -> datetime:
        """Return the virtual time, aware, in UTC."""

    def hold(self) -> AbstractContextManager[None]:
        """Keep virtual time from passing the next due timer while work that began before it is still under way."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that is measured time and again, and the sets of dimensions that it counts in."""

    namespace: str
    name: str
    unit: str
    dimensions: tuple[Mapping[str, str], ...]


class Recorder(Protocol):
    """Records metrics that are always measured together."""

    def record(self, values: Sequence[float], at: datetime) -> None:
        """Record one value of each metric, in their order. Raises ValueError unless all are finite."""


class MetricSink(Protocol):
    """Where measurements go."""

    def put(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        *,
        at: datetime,
        unit: str = "None",
        count: float = 1.0,
    ) -> None:
        """Record `value`, seen `count` times at `at`, for one series."""

    def recorder(self, metrics: Sequence[Metric]) -> Recorder:
        """Return what records these metrics, quicker than `put` one by one; for what every request measures."""


class LogSink(Protocol):
    """Where log lines of functions go."""

    def write(self, group: str, stream: str, at: datetime, line: str) -> None:
        """Append one line to a stream of a log group (`/aws/lambda/<function>`)."""


@dataclass(frozen=True, kw_only=True)
class FunctionVersion:
    """All that is needed to run one version of a function; frozen when the version was published.

    `version` is "$LATEST" or a number as text. `fingerprint` changes whenever a running worker would be out of date
    (only $LATEST ever changes). `code` and `layers` are folders that go on `sys.path`, as /var/task and /opt/python do.
    `snap_start` says that Lambda would wake this version from a snapshot.
    """

    name: str
    version: str
    arn: str
    handler: str
    code: Path
    layers: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int = 128
    timeout_s: float = 3.0
    fingerprint: str = ""
    snap_start: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a function name and qualifier led to: the version to run, and how the metrics must name it.

    `resource` is the value of the `Resource` dimension ("fn", "fn:alias" or "fn:7"); `via_alias` says whether
    `ExecutedVersion` is reported. `reserved` is the function's reserved concurrency, None when it has none.
    """

    function: FunctionVersion
    resource: str
    via_alias: bool
    reserved: int | None = None


class Refused(Exception):
    """Lambda would refuse this call; `code` is its error code, `status` its HTTP status, `reason` why it throttled."""

    def __init__(self, code: str, message: str, status: int, reason: str | None = None) -> None:
        """Keep the parts that the API answers with."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason


class Functions(Protocol):
    """Which functions exist (the strict Lambda API implements this)."""

    def resolve(self, function: str, qualifier: str | None = None) -> Target:
        """Find what one invocation must run; an alias with weights picks a version at random, seeded.

        `function` is a name or an ARN, which may carry the qualifier. Raises `Refused` with ResourceNotFoundException
        (404) for an unknown function, and ResourceConflictException (409) while the version is Pending.
        """


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What one run of a function gave.

    `error` is None, "Handled" or "Unhandled" (the value of X-Amz-Function-Error); `duration_ms` is wall time of the
    handler; `log_tail` the last 4 KB of its log.
    """

    request_id: str
    payload: bytes
    error: str | None
    executed_version: str
    duration_ms: float
    cold: bool
    log_tail: str = ""


class Invoker(Protocol):
    """Runs functions (the data plane implements this); safe to call from any thread."""

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        """Run a function and wait. Raises `Refused` (404, 409, 429 TooManyRequestsException, 413)."""


class AsyncInvoker(Protocol):
    """Lambda's internal queue for asynchronous invocations: returns at once, retries, then dead-letters."""

    def enqueue(self, function: str, payload: bytes, *, qualifier: str | None = None) -> str:
        """Accept an event for a function and return its request id. Raises `Refused` for an unknown function."""


@dataclass(frozen=True, kw_only=True)
class AsyncSettings:
    """How Lambda treats a function's asynchronous invocations (event invoke config and dead-letter config).

    `max_retries` 0 to 2; `max_age_s` 60 to 21600; `on_failure_arn` an SQS queue, SNS topic, Lambda or bus ARN that gets
    the invocation record; `dead_letter_arn` an SQS queue or SNS topic that gets the event itself.
    """

    max_retries: int = 2
    max_age_s: float = 21600.0
    on_failure_arn: str | None = None
    dead_letter_arn: str | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route of the HTTP API with its Lambda proxy integration (payload format 2.0).

    `method` is an HTTP method or "ANY"; `path` may hold `{name}` and a last `{name+}`; both are empty for `$default`.
    `function` is the ARN the integration invokes, qualifier included. `auth` is "NONE" or "AWS_IAM".
    """

    route_key: str
    method: str
    path: str
    function: str
    auth: str = "NONE"
    timeout_ms: int = 30_000


class Routes(Protocol):
    """The routes of the deployed HTTP API (read from the API Gateway backend)."""

    @property
    def generation(self) -> int:
        """A number that grows whenever a route, an integration or a stage changed, so that a reader may cache."""

    def routes(self) -> tuple[Route, ...]:
        """Return all routes, of all HTTP APIs that are deployed."""
