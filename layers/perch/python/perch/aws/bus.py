"""Telling the world: events of Perch on the default EventBridge bus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from perch.domain.errors import NotReady

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_MOST = 10  # entries a PutEvents call


class Bus:
    """The event bus, in our words."""

    def __init__(self, client: EventBridgeClient) -> None:
        self._client = client

    def announce(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Put events (kind, detail) on the bus, in order.

        The bus stamps them: the driver takes its now from the events that wake it, and the time at which something
        happened (`at` in the detail) may be long past when it is told.

        Raises:
            NotReady: EventBridge did not take one of them; announcing all again is harmless.
        """
        for i in range(0, len(events), _MOST):
            try:
                answer = self._client.put_events(
                    Entries=[
                        {"Source": "perch", "DetailType": kind, "Detail": json.dumps(detail)}
                        for kind, detail in events[i : i + _MOST]
                    ]
                )
            except (ClientError, BotoCoreError) as error:
                raise NotReady(f"EventBridge does not take events: {error}") from error
            if answer["FailedEntryCount"]:
                raise NotReady(f"EventBridge did not take {answer['FailedEntryCount']} events; they are sent again")
