"""Telling the world: events of Perch on the default EventBridge bus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perch.domain.errors import NotReady

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_MOST = 10  # entries a PutEvents call


class Bus:
    """The event bus, in our words."""

    def __init__(self, client: EventBridgeClient) -> None:
        self._client = client

    def announce(self, events: Sequence[tuple[str, datetime, Mapping[str, Any]]]) -> None:
        """Put events (kind, time, detail) on the bus, in order.

        Raises:
            NotReady: EventBridge did not take one of them; announcing all again is harmless.
        """
        for i in range(0, len(events), _MOST):
            answer = self._client.put_events(
                Entries=[
                    {"Source": "perch", "DetailType": kind, "Time": at, "Detail": json.dumps(detail)}
                    for kind, at, detail in events[i : i + _MOST]
                ]
            )
            if answer["FailedEntryCount"]:
                raise NotReady(f"EventBridge did not take {answer['FailedEntryCount']} events; they are sent again")
