"""DynamoDB, one request at a time: what AWS promises of conditions and transactions, many threads or not.

moto checks a condition and then writes, and a transaction that is cancelled puts back a copy of the whole table that
was made before it began. With two requests at once a condition could be true for both, and a cancelled transaction
would undo what somebody else had been told is stored. Requests here are short, so they simply take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from moto.dynamodb.responses import DynamoHandler

from perch.local.patches import Patches

_TURN = threading.RLock()


def _in_turn(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call_action(self: Any) -> Any:
        with _TURN:
            return answer(self)

    return call_action


def install(patches: Patches) -> None:
    """Let every request to DynamoDB wait for the one before."""
    patches.wrap(DynamoHandler, "call_action", _in_turn)
