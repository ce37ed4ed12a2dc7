"""Delivery faults: what "at least once, in any order, best effort" can look like, on demand.

A test asks for the next N deliveries, or for a random share of all (seeded), to be duplicated, lost, delayed or
swapped with the one that follows:

    bus.faults = DeliveryFaults(duplicate=Next(1, when=to_function("register")), delay=Share(0.1), delay_s=90, seed=7)

Faults are drawn per delivery (one event to one target) in the order lose, duplicate, delay, reorder; the first that
applies is the one that happens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one target of one rule; `received` is when the bus got it, whatever time it tells."""

    event: Mapping[str, Any]
    received: str
    rule_name: str
    rule_arn: str
    target: Mapping[str, Any]

    @property
    def arn(self) -> str:
        """Where it goes."""
        return str(self.target["Arn"])


Predicate = Callable[[Delivery], bool]


def to_function(name: str) -> Predicate:
    """Select deliveries to the Lambda function `name`, whatever the qualifier."""
    return lambda delivery: f":function:{name}:" in f"{delivery.arn}:"


@dataclass
class Next:
    """The next `count` deliveries (of those that `when` selects)."""

    count: int = 1
    when: Predicate | None = None

    def strikes(self, delivery: Delivery, _: random.Random) -> bool:
        """Tell whether this delivery is one of them, and count it."""
        if self.count < 1 or (self.when is not None and not self.when(delivery)):
            return False
        self.count -= 1
        return True


@dataclass(frozen=True)
class Share:
    """A random share of all deliveries (of those that `when` selects)."""

    share: float
    when: Predicate | None = None

    def strikes(self, delivery: Delivery, randomness: random.Random) -> bool:
        """Draw whether this delivery is one of them."""
        return (self.when is None or self.when(delivery)) and randomness.random() < self.share


Chance = Next | Share


@dataclass(kw_only=True)
class DeliveryFaults:
    """Which deliveries go wrong, and how.

    `delay_s` is how many virtual seconds a delayed delivery is late; a reordered one comes after the next delivery, or
    after `reorder_s` virtual seconds when none follows.
    """

    duplicate: Chance | None = None
    lose: Chance | None = None
    delay: Chance | None = None
    reorder: Chance | None = None
    delay_s: float = 60.0
    reorder_s: float = 60.0
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - faults are to be repeatable, not secret

    def strike(self, delivery: Delivery) -> str | None:
        """Return what happens to a delivery: "lose", "duplicate", "delay", "reorder", or None for nothing."""
        for name in ("lose", "duplicate", "delay", "reorder"):
            chance: Chance | None = getattr(self, name)
            if chance is not None and chance.strikes(delivery, self._random):
                return name
        return None
