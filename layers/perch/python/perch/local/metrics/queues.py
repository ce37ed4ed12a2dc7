"""What SQS tells CloudWatch of its queues: how many messages wait, and how many were received and not yet deleted.

Every minute of virtual time, for each queue of moto's, as gauges in `AWS/SQS` by QueueName. An alarm on a dead-letter
queue goes off here as it does on AWS.

Left out: ages and delays, counts of sends and receives, and that a queue nobody has touched for six hours falls silent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from moto.sqs.models import sqs_backends

from perch.local.clock import Timer, VirtualClock
from perch.local.ports import MetricSink

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_S = 60


class QueueMetrics:
    """Measures the queues of one account and region while it is installed."""

    def __init__(self, clock: VirtualClock, sink: MetricSink, *, account: str, region: str) -> None:
        self._clock = clock
        self._sink = sink
        self._account = account
        self._region = region
        self._timer: Timer | None = None

    def install(self) -> None:
        """Measure at the beginning of every minute from now on."""
        minute = int(self._clock.now().timestamp()) // _MINUTE_S
        first = _EPOCH + timedelta(seconds=(minute + 1) * _MINUTE_S)
        self._timer = self._clock.call_every(_MINUTE_S, self.measure, "queue metrics", first=first)

    def uninstall(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def measure(self, at: datetime) -> None:
        """Measure every queue once."""
        for queue in list(sqs_backends[self._account][self._region].queues.values()):
            for name, count in (
                ("ApproximateNumberOfMessagesVisible", queue.approximate_number_of_messages),
                ("ApproximateNumberOfMessagesNotVisible", queue.approximate_number_of_messages_not_visible),
            ):
                self._sink.put("AWS/SQS", name, {"QueueName": queue.name}, float(count), at=at, unit="Count")
