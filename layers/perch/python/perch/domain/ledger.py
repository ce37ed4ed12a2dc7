"""The audit ledger: one entry for each change of an endpoint's state, written with the change itself, chained by hash.

An entry's hash covers its fields and the hash of the one before, so an entry that was altered, dropped or added later
shows (`broken_at`). The sequence number is part of the entry's key, so no change can be told twice (law 6).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perch.domain.codec import dump

SEVERITY = {
    "RolloutRolledBack": "critical",
    "RollbackDecided": "critical",
    "RolloutRefused": "warning",
    "ModelVersionRejected": "warning",
    "ApprovalAwaited": "warning",
    "AliasCorrected": "warning",
    "CodePassedOver": "warning",
    "EndpointForgotten": "warning",
    "EmergencyRolledBack": "critical",
    "GateOpened": "warning",
    "Paused": "warning",
    "VariantBraked": "critical",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One change: what (`kind`, an event in the past tense), why, who, when, to which rollout, and what was seen."""

    seq: int
    endpoint: str
    kind: str
    reason: str
    actor: str
    at: datetime
    rollout: str | None = None
    model: str | None = None
    version: str | None = None
    revision: str | None = None
    inputs: Any = None
    previous_hash: str = ""
    hash: str = ""

    @staticmethod
    def chain(previous_hash: str, **fields: Any) -> Entry:
        """Make the entry that follows the one with `previous_hash`."""
        bare = Entry(previous_hash=previous_hash, **fields)
        return Entry(previous_hash=previous_hash, hash=_digest(bare), **fields)

    @property
    def severity(self) -> str:
        """`info`, `warning` or `critical`."""
        return SEVERITY.get(self.kind, "info")

    def announcement(self) -> dict[str, Any]:
        """Return the detail of the event that tells the world (docs/contracts.md).

        Of an open gate it also says which gate of which step, so that a listener can answer.
        """
        asked = {k: self.inputs[k] for k in ("gate", "step")} if self.kind == "GateOpened" else {}
        return asked | {
            "endpoint": self.endpoint,
            "model": self.model,
            "version": self.version,
            "revision": self.revision,
            "rollout": self.rollout,
            "reason": self.reason,
            "actor": self.actor,
            "severity": self.severity,
            "at": dump(self.at),
            "seq": self.seq,
        }


def broken_at(entries: Iterable[Entry]) -> int | None:
    """Return the sequence number of the first entry that does not follow from the one before; None if all do."""
    previous, expected = "", 1
    for entry in entries:
        if entry.seq != expected or entry.previous_hash != previous or entry.hash != _digest(entry):
            return entry.seq
        previous, expected = entry.hash, entry.seq + 1
    return None


def _digest(entry: Entry) -> str:
    fields = {k: v for k, v in dump(entry).items() if k != "hash"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
