"""What an experiment remembers: whose reward was counted, the sums, and what its brake has seen.

    EXPERIMENT#<endpoint>  <experiment>#USER#<hash>     this user was counted; goes by itself when nobody may ask again
                           <experiment>#COUNTER#<shard> sums over events, which any number of recorders add to
                           <experiment>#WATCH           what the brake has seen, up to which minute

A user's item and what the user adds to the sums are written in one transaction, so a reward counts once however often
it is sent, and a batch that is cut short can be sent again. User ids are kept as hashes only.

Recorders that meet at one counter make each other wait, so there are several; a reader adds them up.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from perch.aws.table import CONFLICT, FAILED, FINE, NEW, Table
from perch.domain.brake import Watch
from perch.domain.codec import dump, load
from perch.domain.errors import Conflict, NotReady
from perch.domain.significance import BETS, Tally, Versus

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS = 8
_CHUNK = 50  # events in a transaction, which may hold 100 items


@dataclass(frozen=True, kw_only=True)
class Earned:
    """One user's reward: what it adds to the sums, and the sender's own id of the event, if it has one."""

    user: str
    tally: Tally
    event: str | None = None


class Experiments:
    """The items of experiments. `table` is the registry's."""

    def __init__(self, client: DynamoDBClient, table: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._table, self._sleep = Table(client, table), sleep

    # -- rewards --------------------------------------------------------------------------------------------------

    def record(self, endpoint: str, experiment: str, earned: Sequence[Earned], *, shard: int, expires: datetime) -> int:
        """Count rewards of users who were not counted yet.

        Args:
            endpoint: name of the endpoint.
            experiment: id of the experiment.
            earned: rewards; of several of one user the first counts.
            shard: which of the `SHARDS` counters to add to.
            expires: when a user's item may go.

        Returns:
            How many were new.

        Raises:
            NotReady: too many recorders at once; some may have been counted, so sending all again is right.
        """
        first: dict[str, Earned] = {}
        for one in earned:
            first.setdefault(_hashed(one.user), one)
        pk, until = f"EXPERIMENT#{endpoint}", int(expires.timestamp())
        counters = [(pk, f"{experiment}#COUNTER#{(shard + i) % SHARDS}") for i in range(SHARDS)]
        users = [
            ({"pk": pk, "sk": f"{experiment}#USER#{hashed}", "expires": until}, one) for hashed, one in first.items()
        ]
        return sum(self._record(counters, users[i : i + _CHUNK]) for i in range(0, len(users), _CHUNK))

    def _record(self, counters: Sequence[tuple[str, str]], fresh: list[tuple[dict[str, Any], Earned]]) -> int:
        for attempt, counter in enumerate(counters):
            if not fresh:
                return 0
            codes = self._table.write(*self._writes(counter, fresh))
            if codes is None:
                return len(fresh)
            if unknown := set(codes) - {FINE, FAILED, CONFLICT}:
                raise RuntimeError(f"DynamoDB does not take the rewards: {', '.join(sorted(unknown))}")
            # Those who were counted already are left out.
            fresh = [one for one, code in zip(fresh, codes, strict=False) if code != FAILED]
            self._sleep(0 if FAILED in codes else 0.01 * 2**attempt)
        raise NotReady("too many rewards are being recorded at once; send them again")

    def _writes(self, counter: tuple[str, str], fresh: Sequence[tuple[dict[str, Any], Earned]]) -> list[Any]:
        total = fresh[0][1].tally
        for _, one in fresh[1:]:
            total += one.tally
        numbers: dict[str, Any] = {name: value for name, value in _flat(total).items() if value}
        added = "ADD " + ", ".join(f"{name} :{name}" for name in numbers)
        return [
            *(self._table.put(item | ({"event": one.event} if one.event else {}), NEW) for item, one in fresh),
            self._table.update(*counter, added, "", **numbers),
        ]

    def tally(self, endpoint: str, experiment: str, *, variants: int) -> Tally:
        """Return the sums over all rewards of an experiment with so many variants."""
        total = Tally.of(variants)
        for item in self._table.every(f"EXPERIMENT#{endpoint}", f"{experiment}#COUNTER#", now=True):
            total += _tally({name: float(v) for name, v in item.items() if isinstance(v, Decimal)}, variants)
        return total

    # -- the brake ------------------------------------------------------------------------------------------------

    def watch(self, endpoint: str, experiment: str) -> Watch | None:
        """Return what the brake has seen; None before it saw anything."""
        item = self._table.get(f"EXPERIMENT#{endpoint}", f"{experiment}#WATCH")
        return load(Watch, json.loads(item["document"])) if item else None

    def keep_watch(
        self, endpoint: str, experiment: str, before: Watch | None, after: Watch, *, expires: datetime
    ) -> None:
        """Store what the brake has seen, if nobody else saw further meanwhile, so that each minute counts once.

        Raises:
            Conflict: somebody did.
        """
        item = {
            "pk": f"EXPERIMENT#{endpoint}",
            "sk": f"{experiment}#WATCH",
            "document": json.dumps(dump(after), separators=(",", ":")),
            "until": dump(after.until),
            "expires": int(expires.timestamp()),
        }
        known = dump(before.until) if before else ""
        if not self._table.put_if(item, "#until = :before" if before else NEW, before=known):
            raise Conflict(f"another run judged the variants of {experiment} meanwhile; read again")


def _hashed(user: str) -> str:
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _flat(tally: Tally) -> dict[str, Decimal]:
    """Name the sums: users u0…, rewards r0…; of challenger 1: own o1, champion c1, its bets k1_0 and on."""
    found: dict[str, float] = {f"u{i}": n for i, n in enumerate(tally.users)}
    found |= {f"r{i}": n for i, n in enumerate(tally.rewards)}
    for i, versus in enumerate(tally.versus, start=1):
        found |= {f"o{i}": versus.own, f"c{i}": versus.champion}
        found |= {f"k{i}_{j}": capital for j, capital in enumerate(versus.capital)}
    return {name: Decimal(str(round(value, 12))) for name, value in found.items()}


def _tally(numbers: Mapping[str, float], variants: int) -> Tally:
    return Tally(
        users=tuple(round(numbers.get(f"u{i}", 0)) for i in range(variants)),
        rewards=tuple(numbers.get(f"r{i}", 0.0) for i in range(variants)),
        versus=tuple(
            Versus(
                capital=tuple(numbers.get(f"k{i}_{j}", 0.0) for j in range(len(BETS))),
                own=numbers.get(f"o{i}", 0.0),
                champion=numbers.get(f"c{i}", 0.0),
            )
            for i in range(1, variants)
        ),
    )
