"""DynamoDB, one request at a time: what AWS promises of conditions and transactions, many threads or not.

moto checks a condition and then writes, and a transaction that is cancelled puts back a copy of the whole table that
was made before it began. With two requests at once a condition could be true for both, and a cancelled transaction
would undo what somebody else had been told is stored. Requests here are short, so they simply take turns.

The copy, made for every transaction, costs more with every item that is stored: after a week of looks it was most of
what a local cloud did. Here a transaction remembers the items that it names, and puts back those.

Left out: the stream records of a cancelled transaction stay in the stream (Perch reads none).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from moto.dynamodb import models
from moto.dynamodb.models import DynamoDBBackend, Table
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.responses import DynamoHandler

from perch.local.patches import Patches

_TURN = threading.RLock()


def _in_turn(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call_action(self: Any) -> Any:
        with _TURN:
            return answer(self)

    return call_action


def _putting_back(write: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def transact_write_items(self: Any, transact_items: list[dict[str, Any]]) -> None:
        requests = [request for item in transact_items for request in item.values()]
        places = [place for request in requests if (place := _place(self.tables, request))]
        before = [copy.deepcopy(shelf.get(label)) for shelf, label in places]
        try:
            write(self, transact_items)
        except Exception:
            for (shelf, label), item in zip(places, before, strict=True):
                if item is None:
                    shelf.pop(label, None)
                else:
                    shelf[label] = item
            raise

    return transact_write_items


def _place(tables: dict[str, Table], request: dict[str, Any]) -> tuple[dict[Any, Any], DynamoType] | None:
    """Find where moto keeps the item that a request names; None for a request that it will refuse."""
    table, key = tables.get(request.get("TableName", "")), request.get("Key") or request.get("Item") or {}
    if table is None or not {table.hash_key_attr, table.range_key_attr or table.hash_key_attr} <= key.keys():
        return None
    first = DynamoType(key[table.hash_key_attr])
    if table.range_key_attr is None:
        return table.items, first
    return table.items[first], DynamoType(key[table.range_key_attr])


def _deepcopy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Copy anything but a whole table, which moto copies only to put it back."""
    return value if isinstance(value, Table) else copy.deepcopy(value, memo)


def install(patches: Patches) -> None:
    """Let every request to DynamoDB wait for the one before, and a transaction put back what it names."""
    patches.wrap(DynamoHandler, "call_action", _in_turn)
    patches.wrap(DynamoDBBackend, "transact_write_items", _putting_back)
    patches.set(models, "copy", SimpleNamespace(deepcopy=_deepcopy))
