"""The registry: model versions, endpoints, rollouts and the ledger in one DynamoDB table.

Every write is conditional. A model version is put only where none was (law 1); a change of an endpoint is one
transaction of three items (the endpoint under its sequence number, the rollout, the ledger entry under a key that must
be new), so a change is stored whole, once, with its ledger entry, or not at all (law 6). Reads of state are strongly
consistent. The keys are in docs/contracts.md.

A value is one attribute, `document`, as JSON text: it comes back exactly as it went (DynamoDB's numbers would not keep
1.0 apart from 1, which the ledger's hashes need), and costs a fraction of a nested map to send.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from perch.domain.agreement import Replayed
from perch.domain.codec import dump, iso, load
from perch.domain.errors import Conflict, Invalid, NotFound
from perch.domain.ledger import Entry
from perch.domain.look import Look
from perch.domain.model import ModelVersion, Rejection
from perch.domain.rollout import Change, Endpoint, Rollout
from perch.domain.tally import Tally

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_DOCUMENT = 390_000
"""Bytes of a value; DynamoDB keeps items of up to 400 KB, with the keys."""

HEALTH_KEPT = timedelta(days=30)
LOOKS_KEPT = timedelta(days=90)
_to, _from = TypeSerializer(), TypeDeserializer()
T = TypeVar("T")


class Registry:
    """The table, in our words. `table` is its name."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self.table = table

    # -- model versions -------------------------------------------------------------------------------------------

    def last_number(self, model: str) -> int:
        """Return the number of the version of `model` that was registered last; 0 when there is none."""
        item = self._get(f"MODEL#{model}", "MODEL")
        return int(item["last_number"]) if item else 0

    def version(self, model: str, version: str) -> ModelVersion | None:
        """Return one version, or None."""
        item = self._get(f"MODEL#{model}", f"VERSION#{version}")
        return _read(ModelVersion, item) if item else None

    def require_version(self, model: str, version: str) -> ModelVersion:
        """Return one version. Raises NotFound."""
        found = self.version(model, version)
        if found is None:
            raise NotFound(f"model {model!r} has no registered version {version!r}; `perch status` lists what there is")
        return found

    def versions_after(self, model: str, number: int, *, limit: int = 20) -> list[ModelVersion]:
        """Return the versions registered after `number`, in order of registration, at most `limit`."""
        names = [item["version"] for item in self._numbered(f"MODEL#{model}", "NUMBER", number, limit)]
        return [self.require_version(model, name) for name in names]

    def register(self, version: ModelVersion) -> bool:
        """Store a version; `version.number` must be one more than the last. True if it was stored.

        Returns:
            False when the name is taken already (the version there stays as it is).

        Raises:
            Conflict: another version of the model took the number first; read the last number again.
            Invalid: it says more of itself than an item of the table can hold.
        """
        document = _text(version)
        if (size := len(document.encode())) > MAX_DOCUMENT:
            raise Invalid(
                f"signature, metadata and probes of {version.model} {version.version} take {size:,} bytes in the "
                f"registry, which has room for {MAX_DOCUMENT:,}; give inputs and outputs fewer and shorter names"
            )
        pk, number = f"MODEL#{version.model}", version.number
        puts: list[Any] = [
            self._put(
                {"pk": pk, "sk": f"VERSION#{version.version}", "document": document},
                condition="attribute_not_exists(pk)",
            ),
            self._put({"pk": pk, "sk": f"NUMBER#{number:08d}", "version": version.version}),
            {
                "Update": {
                    "TableName": self.table,
                    "Key": _item({"pk": pk, "sk": "MODEL"}),
                    "UpdateExpression": "SET last_number = :n, last_version = :v, model = :m",
                    "ConditionExpression": "last_number = :before"
                    if number > 1
                    else "attribute_not_exists(last_number)",
                    "ExpressionAttributeValues": _item(
                        {":n": number, ":v": version.version, ":m": version.model}
                        | ({":before": number - 1} if number > 1 else {})
                    ),
                }
            },
        ]
        try:
            self._client.transact_write_items(TransactItems=puts)
        except ClientError as error:
            failed = _cancelled(error)
            if failed is None:
                raise
            if failed[0] == "ConditionalCheckFailed":
                return False
            raise Conflict(f"number {number} of model {version.model} was taken meanwhile; read it again") from error
        return True

    def reject(self, rejection: Rejection) -> bool:
        """Keep a refused upload with its reason; False if it was kept before (the event came twice)."""
        item = {
            "pk": "REJECTED",
            "sk": _rejection_key(rejection.key, rejection.version_id),
            "document": _text(rejection),
        }
        try:
            self._client.put_item(
                TableName=self.table, Item=_item(item), ConditionExpression="attribute_not_exists(pk)"
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def rejection(self, key: str, version_id: str) -> Rejection | None:
        """Return why one S3 version of a key was refused; None if it was not."""
        item = self._get("REJECTED", _rejection_key(key, version_id))
        return _read(Rejection, item) if item else None

    def rejections(self, *, prefix: str = "models/", limit: int = 100) -> list[Rejection]:
        """Return refused uploads whose key begins with `prefix`, in order of key."""
        return [_read(Rejection, i) for i in self._query("REJECTED", prefix, limit=limit)]

    def versions(self, model: str, *, limit: int = 50) -> list[ModelVersion]:
        """Return the newest versions of a model, newest first."""
        numbers = self._query(f"MODEL#{model}", "NUMBER#", limit=limit, newest_first=True)
        return [self.require_version(model, item["version"]) for item in numbers]

    # -- endpoints ------------------------------------------------------------------------------------------------

    def endpoint(self, name: str) -> Endpoint:
        """Return the state of an endpoint; a fresh one if nothing ever happened to it."""
        item = self._get(f"ENDPOINT#{name}", "ENDPOINT")
        return _read(Endpoint, item) if item else Endpoint(name=name)

    def endpoint_and_model(self, name: str, model: str) -> tuple[Endpoint, int, int]:
        """Return an endpoint's state, its model's last number, and how far its ledger was announced, in one call.

        Raises:
            Conflict: somebody writes one of them at this moment.
        """
        keys = [{"pk": f"ENDPOINT#{name}", "sk": "ENDPOINT"}, {"pk": f"MODEL#{model}", "sk": "MODEL"}]
        try:
            answer = self._client.transact_get_items(
                TransactItems=[{"Get": {"TableName": self.table, "Key": _item(k)}} for k in keys]
            )
        except ClientError as error:
            if _cancelled(error) is None:
                raise
            raise Conflict(f"endpoint {name} is being written; read it again") from error
        endpoint, last = (_plain(r.get("Item", {})) for r in answer["Responses"])
        return (
            _read(Endpoint, endpoint) if endpoint else Endpoint(name=name),
            int(last.get("last_number", 0)),
            int(endpoint.get("announced", 0)),
        )

    def commit(self, change: Change) -> Endpoint:
        """Store a change with its ledger entry, once, if the state is still the one it was decided on.

        Raises:
            Conflict: the endpoint changed since it was read.
        """
        after, entry = change.after, change.entry
        pk = f"ENDPOINT#{after.name}"
        writes: list[Any] = [
            {
                "Update": {
                    "TableName": self.table,
                    "Key": _item({"pk": pk, "sk": "ENDPOINT"}),
                    "UpdateExpression": "SET document = :d, seq = :n",
                    "ConditionExpression": "attribute_not_exists(pk)" if change.before.seq == 0 else "seq = :before",
                    "ExpressionAttributeValues": _item(
                        {":d": _text(after), ":n": after.seq}
                        | ({} if change.before.seq == 0 else {":before": change.before.seq})
                    ),
                }
            },
            self._put(
                {"pk": pk, "sk": f"LEDGER#{entry.seq:08d}", "document": _text(entry)},
                condition="attribute_not_exists(pk)",
            ),
        ]
        if change.rollout:
            writes.append(
                {
                    "Update": {  # not Put: the tally stands in the same item
                        "TableName": self.table,
                        "Key": _item({"pk": pk, "sk": f"ROLLOUT#{change.rollout.id}"}),
                        "UpdateExpression": "SET document = :d",
                        "ExpressionAttributeValues": _item({":d": _text(change.rollout)}),
                    }
                }
            )
        try:
            self._client.transact_write_items(TransactItems=writes)
        except ClientError as error:
            if _cancelled(error) is None:
                raise
            raise Conflict(f"endpoint {after.name} changed while entry {entry.seq} was written; read again") from error
        return after

    def announced(self, endpoint: str, seq: int) -> None:
        """Note that ledger entries up to `seq` are on the event bus (a later note wins over an earlier one)."""
        try:
            self._client.update_item(
                TableName=self.table,
                Key=_item({"pk": f"ENDPOINT#{endpoint}", "sk": "ENDPOINT"}),
                UpdateExpression="SET announced = :n",
                ConditionExpression="attribute_not_exists(announced) OR announced < :n",
                ExpressionAttributeValues=_item({":n": seq}),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def tally(self, endpoint: str, rollout: str) -> Tally | None:
        """Return what a rollout's evidence adds up to so far; None before the first look."""
        item = self._get(f"ENDPOINT#{endpoint}", f"ROLLOUT#{rollout}")
        return load(Tally, json.loads(item["tally"])) if item and "tally" in item else None

    def record_look(self, endpoint: str, look: Look, tally: Tally, *, before: datetime | None) -> None:
        """Store a tally in its rollout's item, and the look that made it, if nobody else counted the same minutes.

        Args:
            endpoint: name of the endpoint.
            look: what was seen and said.
            tally: the sum, up to a later minute than before.
            before: up to when the tally counted that this one was made from; None for the first.

        Raises:
            Conflict: another run counted meanwhile.
        """
        pk, until = f"ENDPOINT#{endpoint}", iso(tally.until)
        condition = "#until = :before" if before else "attribute_not_exists(#until)"
        values = {":t": _text(tally), ":u": until} | ({":before": iso(before)} if before else {})
        item = {
            "pk": pk,
            "sk": f"LOOK#{look.rollout}#{until}",
            "document": _text(look),
            "expires": int((look.at + LOOKS_KEPT).timestamp()),
        }
        writes: list[Any] = [
            {
                "Update": {
                    "TableName": self.table,
                    "Key": _item({"pk": pk, "sk": f"ROLLOUT#{look.rollout}"}),
                    "UpdateExpression": "SET tally = :t, #until = :u",
                    "ConditionExpression": condition,
                    "ExpressionAttributeNames": {"#until": "until"},
                    "ExpressionAttributeValues": _item(values),
                }
            },
            self._put(item),
        ]
        try:
            self._client.transact_write_items(TransactItems=writes)
        except ClientError as error:
            if _cancelled(error) is None:
                raise
            raise Conflict(f"another run counted the minutes of {look.rollout} up to {until} meanwhile") from error

    def looks(self, endpoint: str, rollout: str) -> Iterator[Look]:
        """Yield every look at a rollout that is still kept, in order."""
        names = {":pk": f"ENDPOINT#{endpoint}", ":prefix": f"LOOK#{rollout}#"}
        pages = self._client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=_item(names),
        )
        for page in pages:
            for item in page["Items"]:
                yield _read(Look, _plain(item))

    def rollout(self, endpoint: str, rollout: str) -> Rollout | None:
        """Return one rollout by its id, or None."""
        item = self._get(f"ENDPOINT#{endpoint}", f"ROLLOUT#{rollout}")
        return _read(Rollout, item) if item else None

    def rollouts(self, endpoint: str, *, limit: int = 20) -> list[Rollout]:
        """Return the newest rollouts of an endpoint, newest first."""
        items = self._query(f"ENDPOINT#{endpoint}", "ROLLOUT#", limit=limit, newest_first=True)
        return [_read(Rollout, i) for i in items]

    def ledger(self, endpoint: str, *, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Return the ledger entries with a sequence number above `after`, in order."""
        return [_read(Entry, item) for item in self._numbered(f"ENDPOINT#{endpoint}", "LEDGER", after, limit)]

    # -- lease ----------------------------------------------------------------------------------------------------

    def take_lease(self, endpoint: str, owner: str, *, now: datetime, seconds: int) -> bool:
        """Take the right to change a function, for a while; False if somebody else has it.

        A lease is a courtesy that keeps two ticks from publishing over each other. What makes it safe to lose is the
        RevisionId on every Lambda write and the sequence number on every registry write.
        """
        try:
            self._client.put_item(
                TableName=self.table,
                Item=_item(
                    {
                        "pk": f"ENDPOINT#{endpoint}",
                        "sk": "LEASE",
                        "owner": owner,
                        "until": iso(now + timedelta(seconds=seconds)),
                    }
                ),
                ConditionExpression="attribute_not_exists(pk) OR #until <= :now OR #owner = :owner",
                ExpressionAttributeNames={"#until": "until", "#owner": "owner"},
                ExpressionAttributeValues=_item({":now": iso(now), ":owner": owner}),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def drop_lease(self, endpoint: str, owner: str) -> None:
        """Give the lease back, if it is still ours."""
        try:
            self._client.delete_item(
                TableName=self.table,
                Key=_item({"pk": f"ENDPOINT#{endpoint}", "sk": "LEASE"}),
                ConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues=_item({":owner": owner}),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    # -- replays --------------------------------------------------------------------------------------------------

    def replayed(self, endpoint: str, rollout: str) -> Replayed | None:
        """Return what the replays of a rollout showed so far; None before the first."""
        item = self._get(f"REPLAY#{endpoint}", rollout)
        return _read(Replayed, item) if item else None

    def record_replayed(self, endpoint: str, rollout: str, value: Replayed) -> None:
        """Store a sum that has one run more than the one it was made from; each run is counted once.

        Raises:
            Conflict: another run was stored meanwhile; its requests may be the same, so this one's are not counted.
        """
        key = {"pk": f"REPLAY#{endpoint}", "sk": rollout}  # not the endpoint's: who replays may move no traffic
        guard: Any = {"ConditionExpression": "attribute_not_exists(pk)"}
        if value.runs > 1:
            before = _item({":before": value.runs - 1})
            guard = {"ConditionExpression": "runs = :before", "ExpressionAttributeValues": before}
        try:
            self._client.put_item(
                TableName=self.table, Item=_item(key | {"runs": value.runs, "document": _text(value)}), **guard
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise Conflict(f"the replays of rollout {rollout} were counted by another run") from error

    # -- health ---------------------------------------------------------------------------------------------------

    def record_health(self, endpoint: str, role: str, *, at: datetime, document: dict[str, Any]) -> None:
        """Keep one health check for 30 days; the same check twice is one record."""
        self._client.put_item(
            TableName=self.table,
            Item=_item(
                {
                    "pk": f"HEALTH#{endpoint}",
                    "sk": f"{iso(at)}#{role}",
                    "expires": int((at + HEALTH_KEPT).timestamp()),
                    "document": _text(document),
                }
            ),
        )

    def health(self, endpoint: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest health checks, newest first."""
        items = self._query(f"HEALTH#{endpoint}", "", limit=limit, newest_first=True)
        return [json.loads(i["document"]) | {"at": i["sk"].split("#")[0], "role": i["sk"].split("#")[1]} for i in items]

    # -- plumbing -------------------------------------------------------------------------------------------------

    def _get(self, pk: str, sk: str) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self.table, Key=_item({"pk": pk, "sk": sk}), ConsistentRead=True)
        return _plain(answer["Item"]) if "Item" in answer else None

    def _query(self, pk: str, prefix: str, *, limit: int, newest_first: bool = False) -> Iterator[dict[str, Any]]:
        names: dict[str, Any] = {":pk": pk} | ({":prefix": prefix} if prefix else {})
        page = self._client.query(
            TableName=self.table,
            KeyConditionExpression="pk = :pk" + (" AND begins_with(sk, :prefix)" if prefix else ""),
            ExpressionAttributeValues=_item(names),
            ScanIndexForward=not newest_first,
            Limit=limit,
        )
        return map(_plain, page["Items"])

    def _numbered(self, pk: str, kind: str, after: int, limit: int) -> Iterator[dict[str, Any]]:
        """Return the items `kind#<8 digits>` whose number is above `after`, in order."""
        page = self._client.query(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
            ExpressionAttributeValues=_item(
                {":pk": pk, ":low": f"{kind}#{after + 1:08d}", ":high": f"{kind}#99999999"}
            ),
            ConsistentRead=True,
            Limit=limit,
        )
        return map(_plain, page["Items"])

    def _put(self, item: dict[str, Any], *, condition: str | None = None) -> dict[str, Any]:
        put: dict[str, Any] = {"TableName": self.table, "Item": _item(item)}
        if condition:
            put["ConditionExpression"] = condition
        return {"Put": put}


def _item(values: dict[str, Any]) -> dict[str, Any]:
    """Return values (text and whole numbers) as DynamoDB attribute values."""
    return {k: _to.serialize(v) for k, v in values.items()}


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    return {k: _from.deserialize(v) for k, v in item.items()}


def _text(value: Any) -> str:
    return json.dumps(dump(value), separators=(",", ":"))


def _read(kind: type[T], item: dict[str, Any]) -> T:
    return load(kind, json.loads(item["document"]))


def _rejection_key(key: str, version_id: str) -> str:
    """Return the sort key of a refused upload: its S3 key, cut where DynamoDB's 1,024 bytes would not do."""
    name = key.encode()
    if len(name) > 800:
        name = name[:700].decode(errors="ignore").encode() + b"~" + hashlib.sha256(name).hexdigest().encode()
    return f"{name.decode()}#{version_id}"


def _cancelled(error: ClientError) -> list[str] | None:
    """Return the reason code of each item of a cancelled transaction; None if this is another error."""
    if error.response["Error"]["Code"] != "TransactionCanceledException":
        return None
    reasons: list[dict[str, str]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    return [r.get("Code", "None") for r in reasons] or ["ConditionalCheckFailed"]
