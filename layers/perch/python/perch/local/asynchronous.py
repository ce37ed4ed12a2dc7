"""Lambda's internal queue for asynchronous invocations: accept at once, run soon, retry, and dead-letter.

    enqueue ─> queue ─> a worker thread invokes ─┬─ fine: done
                 ^                               ├─ function error: again after 1, then 2 minutes, up to `max_retries`
                 └──── timer on the clock ───────┼─ throttled or system error: again after 1 s, 2 s, 4 s ... 5 minutes,
                                                 │  until the event is older than `max_age_s`
                                                 └─ given up: OnFailure record and dead-letter message

While an event is queued or runs, it holds the clock; while it waits for a retry it does not, for the retry is a timer.
So stepping the clock waits for handlers, and a week of retries passes in no time.

With `width` 1 events run one after the other, in the order in which they were accepted. What runs is decided by the
`Invoker`; this module only knows how Lambda treats what comes back.

Left out: OnSuccess destinations, the rule that a reserved concurrency of zero skips the retries, the queue's own
duplicates (the bus makes those on demand), and Async* metrics. The invoker chooses the request id that a handler sees;
the one that `enqueue` returns is the one in the records.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from perch.local.clock import Hold, VirtualClock
from perch.local.ports import AsyncSettings, Invocation, Invoker, Refused

_log = logging.getLogger(__name__)
_MAX_PAYLOAD = 1024 * 1024
_MAX_BACKOFF_S = 300.0
_SYSTEM_ERROR = Refused("ServiceException", "The service failed while it ran the function.", 500)


class Send(Protocol):
    """Sends a text to what an ARN names (`Sender.send`)."""

    def __call__(self, arn: str, body: str, *, attributes: Mapping[str, str | int] | None = None) -> None:
        """Send `body` to `arn`."""


@dataclass
class _Job:
    """One accepted event. `runs` counts the invocations that failed in the function, `refusals` the ones refused."""

    request_id: str
    function: str
    qualifier: str | None
    payload: bytes
    accepted: datetime
    hold: Hold
    runs: int = 0
    refusals: int = 0


class AsyncLambda:
    """The queue; an `AsyncInvoker`. Safe to call from any thread.

    Args:
        invoker: Runs functions.
        settings: Tells how a function (name or ARN, with its qualifier) is to be treated.
        clock: The one clock.
        send: Takes dead letters and failure records; None drops them.
        check: Called with (function, qualifier) before an event is accepted; raises `Refused` for an unknown function.
        width: How many events run at once. Threads are made when they are needed.
        account: The account, for the ARNs in records.
        region: The region, for the same.
    """

    def __init__(
        self,
        invoker: Invoker,
        settings: Callable[[str], AsyncSettings],
        clock: VirtualClock,
        *,
        send: Send | None = None,
        check: Callable[[str, str | None], object] | None = None,
        width: int = 4,
        account: str = "123456789012",
        region: str = "us-east-1",
    ) -> None:
        self._invoker = invoker
        self._settings = settings
        self._clock = clock
        self.send = send
        self._check = check
        self._width = width
        self._account = account
        self._region = region
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._waiting = 0

    def enqueue(self, function: str, payload: bytes, *, qualifier: str | None = None) -> str:
        """Accept an event for a function and return its request id. Raises `Refused` for an unknown function."""
        if self._check is not None:
            self._check(function, qualifier)
        if len(payload) > _MAX_PAYLOAD:
            message = (
                f"{len(payload)} byte payload is too large for the Event invocation type (limit {_MAX_PAYLOAD} bytes)"
            )
            raise Refused("RequestTooLargeException", message, 413)
        request_id = str(uuid.uuid4())
        hold = self._clock.hold(f"asynchronous invocation of {function}")
        self._submit(_Job(request_id, function, qualifier, payload, self._clock.now(), hold))
        return request_id

    @property
    def pending_retries(self) -> int:
        """How many events wait for their retry."""
        return self._waiting

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Wait until nothing is queued or runs (events that wait for a retry do not count). Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._under_way == 0, timeout_s):
                raise TimeoutError(
                    f"{self._under_way} asynchronous invocations are still under way after {timeout_s} s"
                )

    def stop(self) -> None:
        """End the threads once they have run what is queued."""
        with self._changed:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join(timeout=10)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _submit(self, job: _Job) -> None:
        job.hold.__enter__()
        with self._changed:
            self._under_way += 1
            if len(self._threads) < min(self._width, self._under_way):
                thread = threading.Thread(target=self._work, name=f"perch-async-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(job)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                self._run(job)
            except Exception:  # noqa: BLE001 - the queue must outlive a bug in one job
                _log.exception("asynchronous invocation of %s failed in the queue itself", job.function)
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()
                job.hold.__exit__(None, None, None)

    def _run(self, job: _Job) -> None:
        settings = self._settings(f"{job.function}:{job.qualifier}" if job.qualifier else job.function)
        age_s = (self._clock.now() - job.accepted).total_seconds()
        if age_s > settings.max_age_s:
            self._give_up(job, settings, "EventAgeExceeded", None)
            return
        result: Invocation | Refused
        try:
            result = self._invoker.invoke(job.function, job.payload, qualifier=job.qualifier)
        except Refused as refusal:
            result = refusal
        except Exception:  # noqa: BLE001 - Lambda treats whatever breaks in it as a system error
            _log.exception("the data plane failed while it ran %s", job.function)
            result = _SYSTEM_ERROR
        if isinstance(result, Refused):
            self._refused(job, settings, result)
            return
        if result.error is None:
            return
        job.runs += 1
        if job.runs > settings.max_retries:
            self._give_up(job, settings, "RetriesExhausted", result)
        else:
            self._again(job, 60.0 * job.runs)

    def _refused(self, job: _Job, settings: AsyncSettings, refusal: Refused) -> None:
        """Throttles (429), a version that is not active yet (409) and system errors (5xx) pass; the rest does not."""
        job.refusals += 1
        if refusal.status in (409, 429) or refusal.status >= 500:
            wait_s = min(2.0 ** (job.refusals - 1), _MAX_BACKOFF_S)
            if (self._clock.now() - job.accepted).total_seconds() + wait_s <= settings.max_age_s:
                self._again(job, wait_s)
                return
            self._give_up(job, settings, "EventAgeExceeded", refusal)
        else:
            self._give_up(job, settings, "RetriesExhausted", refusal)

    def _again(self, job: _Job, wait_s: float) -> None:
        def retry(_: datetime) -> None:
            with self._changed:
                self._waiting -= 1
            self._submit(job)

        with self._changed:
            self._waiting += 1
        due = self._clock.now() + timedelta(seconds=wait_s)
        self._clock.call_at(due, retry, f"retry of {job.function}")

    def _give_up(self, job: _Job, settings: AsyncSettings, condition: str, result: Invocation | Refused | None) -> None:
        _log.warning("gave up an asynchronous invocation of %s: %s", job.function, condition)
        if settings.on_failure_arn is not None:
            record = self._record(job, settings.on_failure_arn, condition, result)
            self._send(settings.on_failure_arn, record)
        if settings.dead_letter_arn is not None:
            attributes: dict[str, str | int] = {
                "RequestID": job.request_id,
                "ErrorCode": result.status if isinstance(result, Refused) else 200,
                "ErrorMessage": _message(result)[:1024] or condition,
            }
            self._send(settings.dead_letter_arn, job.payload.decode("utf-8", "replace"), attributes)

    def _send(self, arn: str, body: str, attributes: Mapping[str, str | int] | None = None) -> None:
        if self.send is None:
            _log.warning("nobody takes the dead letter for %s", arn)
            return
        try:
            self.send(arn, body, attributes=attributes)
        except Exception:  # noqa: BLE001 - a lost dead letter is a metric on AWS, never an error of the invocation
            _log.exception("could not send a dead letter to %s", arn)

    def _record(self, job: _Job, destination: str, condition: str, result: Invocation | Refused | None) -> str:
        """The invocation record, as documented; on a bus it is the detail of an event."""
        arn = self._arn(job)
        record: dict[str, Any] = {
            "version": "1.0",
            "timestamp": self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "requestContext": {
                "requestId": job.request_id,
                "functionArn": arn,
                "condition": condition,
                "approximateInvokeCount": job.runs + job.refusals,
            },
            "requestPayload": _json(job.payload),
        }
        if isinstance(result, Invocation):
            record["responseContext"] = {
                "statusCode": 200,
                "executedVersion": result.executed_version,
                "functionError": result.error,
            }
            record["responsePayload"] = _json(result.payload)
        if ":event-bus/" not in destination:
            return json.dumps(record)
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Lambda Function Invocation Result - Failure",
            "source": "lambda",
            "account": self._account,
            "time": self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._region,
            "resources": [destination, arn],
            "detail": record,
        }
        return json.dumps(event)

    def _arn(self, job: _Job) -> str:
        base = job.function
        if not base.startswith("arn:"):
            base = f"arn:aws:lambda:{self._region}:{self._account}:function:{base}"
        qualified = base.count(":") > 6  # arn:aws:lambda:region:account:function:name has six colons
        return base if qualified else f"{base}:{job.qualifier or '$LATEST'}"


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")


def _message(result: Invocation | Refused | None) -> str:
    if result is None:
        return ""
    if isinstance(result, Refused):
        return result.message
    answer = _json(result.payload)
    return str(answer.get("errorMessage", "")) if isinstance(answer, dict) else str(answer)
