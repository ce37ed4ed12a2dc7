"""Captured requests, out of the log lines of a predictor.

A predictor writes a share of its requests into its log as they were asked and answered (`predictor.captured`).
FilterLogEvents finds those lines by their `event`. Its pages may be empty and still have a successor, so what bounds
reading is not the number of lines but the caller, who is asked before each page whether to `stop`.

FilterLogEvents can also give the newest lines first, but the boto3 of the Lambda runtime need not know that yet:
`before` walks back in stretches instead, each twice as long as the one before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from perch.aws.trouble import code_of, passes
from perch.domain.agreement import Answer
from perch.domain.errors import NotReady

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

CAPTURED = "predictor.captured"
_PATTERN = f'{{ $.event = "{CAPTURED}" }}'
_FIRST_STRETCH = timedelta(minutes=1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A request as it was asked and answered.

    `at` is the time of its log line, `features` its rows, None if they were too large to be written; `answer` is what
    `revision` (a Lambda version) answered.
    """

    request_id: str
    at: datetime
    revision: str
    features: tuple[tuple[float, ...], ...] | None
    answer: Answer

    @property
    def whole(self) -> bool:
        """Whether the answer was written down for every row."""
        return self.features is not None and len(self.answer.predictions) == len(self.features)


class Logs:
    """CloudWatch Logs, in our words."""

    def __init__(self, client: CloudWatchLogsClient) -> None:
        self._client = client

    def after(self, function: str, since: datetime, until: datetime, *, stop: Callable[[], bool]) -> Iterator[Captured]:
        """Yield the requests captured in [since, until), oldest first; pages are read as they are needed.

        Raises:
            NotReady: CloudWatch Logs throttles or fails; what was yielded is good.
        """
        for page in self._pages(function, since, until, stop):
            yield from page

    def before(
        self, function: str, until: datetime, floor: datetime, *, stop: Callable[[], bool]
    ) -> Iterator[tuple[datetime, list[Captured]]]:
        """Yield the requests captured in [floor, until], newest first, stretch by stretch with its beginning.

        A stretch that could not be read to its end is not yielded; whoever comes back begins with a short one.

        Raises:
            NotReady: as for `after`.
        """
        end, stretch = until + _MILLISECOND, _FIRST_STRETCH
        while end > floor:
            begin = max(floor, end - stretch)
            found = [captured for page in self._pages(function, begin, end, stop) for captured in page]
            if stop():
                return
            yield begin, found[::-1]
            end, stretch = begin, 2 * stretch

    def _pages(
        self, function: str, since: datetime, until: datetime, stop: Callable[[], bool]
    ) -> Iterator[list[Captured]]:
        if since >= until:
            return
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{function}",
            filterPattern=_PATTERN,
            startTime=_epoch_ms(since),
            endTime=_epoch_ms(until) - 1,  # CloudWatch Logs includes the end
        )
        try:
            for page in pages:
                if stop():
                    return
                yield [captured for event in page["events"] if (captured := _read(event))]
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and code_of(error) == "ResourceNotFoundException":
                return  # the function never wrote a line
            if not passes(error):
                raise
            raise NotReady(f"CloudWatch Logs does not answer: {error}") from error


def _read(event: Any) -> Captured | None:
    """Read a line; None for one that is not what it says (whoever may write to the log may write anything)."""
    try:
        line = json.loads(event["message"])
        features = line.get("features")
        return Captured(
            request_id=str(line["request_id"]),
            at=datetime.fromtimestamp(event["timestamp"] / 1000, UTC),
            revision=str(line["revision"]),
            features=None if features is None else tuple(tuple(map(float, row)) for row in features),
            answer=Answer(
                status=int(line.get("status", 200)),
                predictions=tuple(line.get("predictions") or ()),
                probabilities=tuple(tuple(map(float, row)) for row in line.get("probabilities") or ()),
                latency_ms=float(line["latency_ms"]),
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
