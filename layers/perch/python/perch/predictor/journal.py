"""What is written of a request: its log line, which carries its metrics, and for a share of them what was asked.

The line of a probe or a replay has no metrics, and neither is captured: they are no traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from . import capture, telemetry
from .identity import pseudonym, well_formed
from .operations import Outcome
from .prediction import as_number
from .variants import Choice

PROBE_STAGE, REPLAY_STAGE = "perch-probe", "perch-replay"
"""`requestContext.stage` of a probe and of a replay; API Gateway sets it for all others, so that no client can."""

NO_TRAFFIC: Mapping[str | None, str] = {PROBE_STAGE: "predictor.probed", REPLAY_STAGE: "predictor.replayed"}
"""Events of the lines of what is no traffic, by stage."""


class Noted(NamedTuple):
    """Facts of one request.

    `names` are model, version and variant as far as there are such; `ms` is how long the answer took; `at` the
    request's time in ms since 1970; `client_id` the client's own name for it; `cold` whether it was the first that this
    process answered.
    """

    event: Mapping[str, Any]
    request_id: str
    client_id: str | None
    revision: str
    names: Mapping[str, str]
    choice: Choice | None
    outcome: Outcome
    ms: float
    at: int
    cold: bool


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Writes for one endpoint; `share` of the answered requests are captured, `salt` goes into users' pseudonyms."""

    endpoint: str
    share: float
    salt: str

    def write(self, noted: Noted, stage: str | None) -> None:
        """Write the lines of one request."""
        outcome, choice = noted.outcome, noted.choice
        status, predicted = outcome.status, outcome.answer
        line: dict[str, Any] = {
            "level": "ERROR" if status >= 500 else "INFO",
            "event": "predictor.answered",
            "request_id": noted.request_id,
            **noted.names,
        }
        if choice is not None:
            line["sticky"] = choice.sticky
        line["status"] = status
        line["rows"] = outcome.rows
        if (client_id := noted.client_id or well_formed(outcome.id)) is not None:
            line["client_request_id"] = client_id
        if outcome.cache is not None:
            line["cache"] = outcome.cache
        if outcome.error is not None:
            line["error"] = outcome.error
            predicted = None
        elif predicted is not None:
            line["predictions"] = telemetry.shown(predicted.predictions)
        if (event := NO_TRAFFIC.get(stage)) is not None:
            telemetry.write({**line, "event": event, "latency_ms": noted.ms, "revision": noted.revision})
            return
        if self.share and predicted is not None and outcome.features is not None:
            self._capture(noted)
        telemetry.write(
            telemetry.with_metrics(
                line,
                endpoint=self.endpoint,
                revision=noted.revision,
                variant=None if choice is None else choice.dimension,
                status=status,
                ms=noted.ms,
                at=noted.at,
                cold=noted.cold,
                prediction=None if predicted is None else as_number(predicted.predictions),
                cache=outcome.cache,
            )
        )

    def _capture(self, noted: Noted) -> None:
        outcome = noted.outcome
        if outcome.answer is None or not capture.wanted(noted.request_id, self.share):
            return
        telemetry.write_text(
            capture.captured(
                request_id=noted.request_id,
                names=noted.names,
                revision=noted.revision,
                user=pseudonym(noted.event, self.salt),
                cache=outcome.cache,
                body_size=len(noted.event["body"]),
                features=outcome.features,
                answer=outcome.answer.to_json(),
                ms=noted.ms,
                at=noted.at,
            )
        )
