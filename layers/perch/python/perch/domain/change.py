"""How a change is made: two states of an endpoint, joined by the ledger entry that tells of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from perch.domain.codec import dump
from perch.domain.ledger import Entry
from perch.domain.rollout import Candidate, Change, Endpoint, Rollout

REASON_LIMIT = 1000  # an answer that is quoted may be long; items and events may not


def change(
    before: Endpoint,
    after: Endpoint,
    kind: str,
    reason: str,
    actor: str,
    now: datetime,
    *,
    rollout: Rollout | None = None,
    candidate: Candidate | None = None,
    inputs: Any = None,
) -> Change:
    """Join two states by the ledger entry that tells of it: about a `candidate` in the queue, or about a `rollout`."""
    rollout = rollout or after.rollout
    reason = reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
    about = candidate or (rollout.candidate if rollout else None)
    queueing = candidate is not None
    entry = Entry.chain(
        before.last_hash,
        seq=before.seq + 1,
        endpoint=before.name,
        kind=kind,
        reason=reason,
        actor=actor,
        at=now,
        rollout=rollout.id if rollout and not queueing else None,
        model=about.pointer.model if about else None,
        version=about.pointer.version if about else None,
        revision=rollout.revision.lambda_version if rollout and rollout.revision and not queueing else None,
        inputs=dump(inputs) if inputs is not None else None,
    )
    return Change(
        before=before,
        after=replace(after, seq=entry.seq, last_hash=entry.hash),
        entry=entry,
        rollout=None if queueing else rollout,
    )
