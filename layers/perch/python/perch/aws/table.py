"""A DynamoDB table of documents: items under two keys, written on conditions.

    put, update      parts of a transaction, which `write` makes whole or not at all
    put_if …         one item, on a condition; False if it did not hold
    get, query …     plain values back

In expressions `:name` stands for a value that is given by that name, `#name` for an attribute whose name DynamoDB
reserves. What the items mean is for the registry to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from perch.aws.trouble import code_of
from perch.domain.errors import Conflict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NEW = "attribute_not_exists(pk)"
FINE, FAILED, CONFLICT = "None", "ConditionalCheckFailed", "TransactionConflict"
"""What DynamoDB says of each part of a transaction that it cancelled."""

_to, _from = TypeSerializer(), TypeDeserializer()


class Table:
    """The table called `name`."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self.name = name

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """Return an item as it is now; None if there is none."""
        answer = self._client.get_item(TableName=self.name, Key=_item({"pk": pk, "sk": sk}), ConsistentRead=True)
        return _plain(answer["Item"]) if "Item" in answer else None

    def get_together(self, *keys: tuple[str, str]) -> list[dict[str, Any]]:
        """Return items as they are at one moment, empty where there is none. Raises Conflict if one is written."""
        wanted: Any = [{"Get": {"TableName": self.name, "Key": _item({"pk": pk, "sk": sk})}} for pk, sk in keys]
        try:
            answer = self._client.transact_get_items(TransactItems=wanted)
        except ClientError as error:
            if not _cancelled(error, 1):
                raise
            raise Conflict(f"{keys[0][0]} is being written; read it again") from error
        return [_plain(found.get("Item", {})) for found in answer["Responses"]]

    def query(self, pk: str, prefix: str = "", *, limit: int, newest_first: bool = False) -> Iterator[dict[str, Any]]:
        """Return the first items whose second key begins with `prefix`, or the last ones, in order of that key."""
        page = self._client.query(
            TableName=self.name, **_beginning(pk, prefix), ScanIndexForward=not newest_first, Limit=limit
        )
        return map(_plain, page["Items"])

    def every(self, pk: str, prefix: str, *, now: bool = False) -> Iterator[dict[str, Any]]:
        """Yield all items whose second key begins with `prefix`, in order; with `now`, as they are at this moment."""
        pages = self._client.get_paginator("query")
        for page in pages.paginate(TableName=self.name, **_beginning(pk, prefix), ConsistentRead=now):
            yield from map(_plain, page["Items"])

    def numbered(self, pk: str, kind: str, *, after: int, limit: int) -> Iterator[dict[str, Any]]:
        """Return the items `kind#<8 digits>` as they are now whose number is above `after`, in order."""
        between = _expressions(
            {"pk": pk, "low": f"{kind}#{after + 1:08d}", "high": f"{kind}#99999999"},
            KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
        )
        page = self._client.query(TableName=self.name, **between, ConsistentRead=True, Limit=limit)
        return map(_plain, page["Items"])

    # -- writing one item ---------------------------------------------------------------------------------------------

    def put_if(self, item: Mapping[str, Any], condition: str = NEW, **values: Any) -> bool:
        """Put an item if the condition holds, by default that its keys are new; return whether it did."""
        return self._on_condition(self._client.put_item, **self.put(item, condition, **values)["Put"])

    def put_anyway(self, item: Mapping[str, Any]) -> None:
        """Put an item, whatever is there."""
        self._client.put_item(**self.put(item)["Put"])

    def update_if(self, pk: str, sk: str, change: str, condition: str, **values: Any) -> bool:
        """Change an item if the condition holds; return whether it did."""
        return self._on_condition(
            self._client.update_item, **self.update(pk, sk, change, condition, **values)["Update"]
        )

    def delete_if(self, pk: str, sk: str, condition: str, **values: Any) -> bool:
        """Delete an item if the condition holds; return whether it did."""
        wanted = _expressions(values, ConditionExpression=condition)
        return self._on_condition(
            self._client.delete_item, TableName=self.name, Key=_item({"pk": pk, "sk": sk}), **wanted
        )

    def _on_condition(self, call: Any, **arguments: Any) -> bool:
        try:
            call(**arguments)
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    # -- writing several together -------------------------------------------------------------------------------------

    def put(self, item: Mapping[str, Any], condition: str = "", **values: Any) -> dict[str, Any]:
        """Return the part of a transaction that puts an item."""
        wanted = _expressions(values, ConditionExpression=condition)
        return {"Put": {"TableName": self.name, "Item": _item(item), **wanted}}

    def update(self, pk: str, sk: str, change: str, condition: str = "", **values: Any) -> dict[str, Any]:
        """Return the part of a transaction that changes an item, such as `SET seq = :n`."""
        wanted = _expressions(values, UpdateExpression=change, ConditionExpression=condition)
        return {"Update": {"TableName": self.name, "Key": _item({"pk": pk, "sk": sk}), **wanted}}

    def write(self, *parts: dict[str, Any]) -> list[str] | None:
        """Write all parts together.

        Returns:
            None if they were written; else what is said of each part (`FINE`, `FAILED`, …), and nothing was.
        """
        wanted: Any = parts
        try:
            self._client.transact_write_items(TransactItems=wanted)
        except ClientError as error:
            codes = _cancelled(error, len(parts))
            if not codes:
                raise
            return codes
        return None


def _beginning(pk: str, prefix: str) -> Any:
    condition = "pk = :pk AND begins_with(sk, :prefix)" if prefix else "pk = :pk"
    return _expressions({"pk": pk, "prefix": prefix}, KeyConditionExpression=condition)


def _expressions(values: Mapping[str, Any], **expressions: str) -> Any:
    """Return the arguments that expressions need: they themselves, and the values and names that they mention."""
    found: dict[str, Any] = {name: text for name, text in expressions.items() if text}
    text = " ".join(found.values())
    if mentioned := set(re.findall(r":(\w+)", text)):
        found["ExpressionAttributeValues"] = _item({f":{name}": values[name] for name in mentioned})
    if reserved := set(re.findall(r"#(\w+)", text)):
        found["ExpressionAttributeNames"] = {f"#{name}": name for name in reserved}
    return found


def _item(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values (text and whole numbers) as DynamoDB attribute values."""
    return {name: _to.serialize(value) for name, value in values.items()}


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _from.deserialize(value) for name, value in item.items()}


def _cancelled(error: ClientError, parts: int) -> list[str]:
    """Return what is said of each part of a cancelled transaction; nothing if this is another error."""
    code = code_of(error)
    if code == "TransactionConflictException":
        return [CONFLICT] * parts
    if code != "TransactionCanceledException":
        return []
    reasons: list[dict[str, str]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    return [reason.get("Code", FINE) for reason in reasons] or [FAILED] * parts
