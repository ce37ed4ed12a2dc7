"""The registry: model versions, endpoints, rollouts and the ledger in one DynamoDB table.

Every write is conditional. A model version is put only where none was (law 1); a change of an endpoint is one
transaction of three items (the endpoint under its sequence number, the rollout, the ledger entry under a key that must
be new), so a change is stored whole, once, with its ledger entry, or not at all (law 6). Reads of state are strongly
consistent. The keys are in docs/contracts.md.

A value is one attribute, `document`, as JSON text: it comes back exactly as it went (DynamoDB's numbers would not keep
1.0 apart from 1, which the ledger's hashes need), and costs a fraction of a nested map to send. How DynamoDB is asked
is in `table`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from perch.aws.table import FAILED, NEW, Table
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
T = TypeVar("T")


class Registry:
    """The table, in our words. `table` is its name."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._table = Table(client, table)

    # -- model versions -------------------------------------------------------------------------------------------

    def last_number(self, model: str) -> int:
        """Return the number of the version of `model` that was registered last; 0 when there is none."""
        item = self._table.get(f"MODEL#{model}", "MODEL")
        return int(item["last_number"]) if item else 0

    def version(self, model: str, version: str) -> ModelVersion | None:
        """Return one version, or None."""
        item = self._table.get(f"MODEL#{model}", f"VERSION#{version}")
        return _read(ModelVersion, item) if item else None

    def require_version(self, model: str, version: str) -> ModelVersion:
        """Return one version. Raises NotFound."""
        found = self.version(model, version)
        if found is None:
            raise NotFound(f"model {model!r} has no registered version {version!r}; `perch status` lists what there is")
        return found

    def versions_after(self, model: str, number: int, *, limit: int = 20) -> list[ModelVersion]:
        """Return the versions registered after `number`, in order of registration, at most `limit`."""
        found = self._table.numbered(f"MODEL#{model}", "NUMBER", after=number, limit=limit)
        return [self.require_version(model, item["version"]) for item in found]

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
        refused = self._table.write(
            self._table.put({"pk": pk, "sk": f"VERSION#{version.version}", "document": document}, NEW),
            self._table.put({"pk": pk, "sk": f"NUMBER#{number:08d}", "version": version.version}),
            self._table.update(
                pk,
                "MODEL",
                "SET last_number = :number, last_version = :version, model = :model",
                "last_number = :before" if number > 1 else "attribute_not_exists(last_number)",
                number=number,
                version=version.version,
                model=version.model,
                before=number - 1,
            ),
        )
        if refused and refused[0] != FAILED:
            raise Conflict(f"number {number} of model {version.model} was taken meanwhile; read it again")
        return not refused

    def reject(self, rejection: Rejection) -> bool:
        """Keep a refused upload with its reason; False if it was kept before (the event came twice)."""
        key = _rejection_key(rejection.key, rejection.version_id)
        return self._table.put_if({"pk": "REJECTED", "sk": key, "document": _text(rejection)})

    def rejection(self, key: str, version_id: str) -> Rejection | None:
        """Return why one S3 version of a key was refused; None if it was not."""
        item = self._table.get("REJECTED", _rejection_key(key, version_id))
        return _read(Rejection, item) if item else None

    def rejections(self, *, prefix: str = "models/") -> list[Rejection]:
        """Return all refused uploads whose key begins with `prefix`, in order of key."""
        return [_read(Rejection, item) for item in self._table.every("REJECTED", prefix, now=True)]

    def versions(self, model: str, *, limit: int = 50) -> list[ModelVersion]:
        """Return the newest versions of a model, newest first."""
        numbers = self._table.query(f"MODEL#{model}", "NUMBER#", limit=limit, newest_first=True)
        return [self.require_version(model, item["version"]) for item in numbers]

    # -- endpoints ------------------------------------------------------------------------------------------------

    def endpoint(self, name: str) -> Endpoint:
        """Return the state of an endpoint; a fresh one if nothing ever happened to it."""
        item = self._table.get(f"ENDPOINT#{name}", "ENDPOINT")
        return _read(Endpoint, item) if item else Endpoint(name=name)

    def endpoint_and_model(self, name: str, model: str) -> tuple[Endpoint, int, int]:
        """Return an endpoint's state, its model's last number, and how far its ledger was announced, in one call.

        Raises:
            Conflict: somebody writes one of them at this moment.
        """
        endpoint, last = self._table.get_together((f"ENDPOINT#{name}", "ENDPOINT"), (f"MODEL#{model}", "MODEL"))
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
        first = change.before.seq == 0
        writes = [
            self._table.update(
                pk,
                "ENDPOINT",
                "SET document = :document, seq = :seq",
                NEW if first else "seq = :before",
                document=_text(after),
                seq=after.seq,
                before=change.before.seq,
            ),
            self._table.put({"pk": pk, "sk": f"LEDGER#{entry.seq:08d}", "document": _text(entry)}, NEW),
        ]
        if change.rollout:  # updated, not put: the tally stands in the same item
            rollout = _text(change.rollout)
            writes.append(
                self._table.update(pk, f"ROLLOUT#{change.rollout.id}", "SET document = :document", document=rollout)
            )
        if self._table.write(*writes):
            raise Conflict(f"endpoint {after.name} changed while entry {entry.seq} was written; read again")
        return after

    def announced(self, endpoint: str, seq: int) -> None:
        """Note that ledger entries up to `seq` are on the event bus (a later note wins over an earlier one)."""
        self._table.update_if(
            f"ENDPOINT#{endpoint}",
            "ENDPOINT",
            "SET announced = :seq",
            "attribute_not_exists(announced) OR announced < :seq",
            seq=seq,
        )

    def tally(self, endpoint: str, rollout: str) -> Tally | None:
        """Return what a rollout's evidence adds up to so far; None before the first look."""
        item = self._table.get(f"ENDPOINT#{endpoint}", f"ROLLOUT#{rollout}")
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
        refused = self._table.write(
            self._table.update(
                pk,
                f"ROLLOUT#{look.rollout}",
                "SET tally = :tally, #until = :until",
                "#until = :before" if before else "attribute_not_exists(#until)",
                tally=_text(tally),
                until=until,
                before=iso(before) if before else "",
            ),
            self._table.put(
                {
                    "pk": pk,
                    "sk": f"LOOK#{look.rollout}#{until}",
                    "document": _text(look),
                    "expires": int((look.at + LOOKS_KEPT).timestamp()),
                }
            ),
        )
        if refused:
            raise Conflict(f"another run counted the minutes of {look.rollout} up to {until} meanwhile")

    def looks(self, endpoint: str, rollout: str) -> Iterator[Look]:
        """Return every look at a rollout that is still kept, in order."""
        return (_read(Look, item) for item in self._table.every(f"ENDPOINT#{endpoint}", f"LOOK#{rollout}#"))

    def rollout(self, endpoint: str, rollout: str) -> Rollout | None:
        """Return one rollout by its id, or None."""
        item = self._table.get(f"ENDPOINT#{endpoint}", f"ROLLOUT#{rollout}")
        return _read(Rollout, item) if item else None

    def rollouts(self, endpoint: str, *, limit: int = 20) -> list[Rollout]:
        """Return the newest rollouts of an endpoint, newest first."""
        items = self._table.query(f"ENDPOINT#{endpoint}", "ROLLOUT#", limit=limit, newest_first=True)
        return [_read(Rollout, i) for i in items]

    def ledger(self, endpoint: str, *, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Return the ledger entries with a sequence number above `after`, in order."""
        return [
            _read(Entry, item)
            for item in self._table.numbered(f"ENDPOINT#{endpoint}", "LEDGER", after=after, limit=limit)
        ]

    # -- lease ----------------------------------------------------------------------------------------------------

    def take_lease(self, endpoint: str, owner: str, *, now: datetime, seconds: int) -> bool:
        """Take the right to change a function, for a while; False if somebody else has it.

        A lease is a courtesy that keeps two ticks from publishing over each other. What makes it safe to lose is the
        RevisionId on every Lambda write and the sequence number on every registry write.
        """
        until = iso(now + timedelta(seconds=seconds))
        return self._table.put_if(
            {"pk": f"ENDPOINT#{endpoint}", "sk": "LEASE", "owner": owner, "until": until},
            f"{NEW} OR #until <= :now OR #owner = :owner",
            now=iso(now),
            owner=owner,
        )

    def drop_lease(self, endpoint: str, owner: str) -> None:
        """Give the lease back, if it is still ours."""
        self._table.delete_if(f"ENDPOINT#{endpoint}", "LEASE", "#owner = :owner", owner=owner)

    # -- replays --------------------------------------------------------------------------------------------------

    def replayed(self, endpoint: str, rollout: str) -> Replayed | None:
        """Return what the replays of a rollout showed so far; None before the first."""
        item = self._table.get(f"REPLAY#{endpoint}", rollout)
        return _read(Replayed, item) if item else None

    def record_replayed(self, endpoint: str, rollout: str, value: Replayed) -> None:
        """Store a sum that has one run more than the one it was made from; each run is counted once.

        Raises:
            Conflict: another run was stored meanwhile; its requests may be the same, so this one's are not counted.
        """
        # Not an item of the endpoint's: who replays may move no traffic.
        item = {"pk": f"REPLAY#{endpoint}", "sk": rollout, "runs": value.runs, "document": _text(value)}
        if not self._table.put_if(item, "runs = :before" if value.runs > 1 else NEW, before=value.runs - 1):
            raise Conflict(f"the replays of rollout {rollout} were counted by another run")

    # -- health ---------------------------------------------------------------------------------------------------

    def record_health(self, endpoint: str, role: str, *, at: datetime, document: dict[str, Any]) -> None:
        """Keep one health check for 30 days; the same check twice is one record."""
        self._table.put_anyway(
            {
                "pk": f"HEALTH#{endpoint}",
                "sk": f"{iso(at)}#{role}",
                "expires": int((at + HEALTH_KEPT).timestamp()),
                "document": _text(document),
            }
        )

    def health(self, endpoint: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest health checks, newest first."""
        items = self._table.query(f"HEALTH#{endpoint}", limit=limit, newest_first=True)
        return [json.loads(i["document"]) | {"at": i["sk"].split("#")[0], "role": i["sk"].split("#")[1]} for i in items]


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
