"""What the demo tells at its end: a timeline with reasons, what each version did, and whether it was as expected.

The timeline is the registry's ledger; requests, failures and accuracy are counted from what the traffic was answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.digits.audience import Audience, Seen
from perch.aws.functions import Functions
from perch.aws.registry import Registry
from perch.domain.ledger import Entry, broken_at
from perch.domain.rollout import Phase, Routing
from perch.local.cloud import LocalCloud

_COLOURS = {"RolloutPromoted": "green", "RollbackDecided": "bold red", "RolloutRolledBack": "red"}
_LEFT_OUT = {"RolloutQueued", "RevisionPublished", "PromotionDecided"}  # each is followed by one that says more


@dataclass(frozen=True)
class Expectation:
    """Something that must be so at the end, and what was found instead."""

    text: str
    held: bool
    detail: str = ""


@dataclass(frozen=True)
class Undoing:
    """How fast a broken version was taken back, counted in requests from its first bad answer to its last answer."""

    requests: int
    bad: int
    virtual_seconds: float


def show(
    console: Console, cloud: LocalCloud, registry: Registry, audience: Audience, *, started: datetime
) -> Mapping[str, Undoing]:
    """Print the timeline and the numbers; return how fast each endpoint's broken version was taken back."""
    facts = {}
    for endpoint, seen in audience.seen.items():
        entries = registry.ledger(endpoint)
        facts[endpoint] = undoing(seen, entries)
        console.print()
        console.print(_timeline(endpoint, entries, started))
        console.print(_versions(endpoint, seen))
        back = facts[endpoint]
        console.print(
            f"{endpoint}: {back.requests} requests from the first bad answer to the end of the roll-back, "
            f"{back.bad} of them failed; {back.virtual_seconds:.0f} virtual seconds from v3's first traffic.",
            soft_wrap=True,
        )
    console.print(
        f"\n{audience.total:,} requests, {audience.failed} failed; "
        f"{(cloud.clock.now() - started).total_seconds() / 3600:.1f} virtual hours."
    )
    return facts


def undoing(seen: Seen, entries: list[Entry]) -> Undoing:
    """Count from the first failed request to the last answer of v3 (a failed answer does not name its version)."""
    first = seen.bad[0] if seen.bad else len(seen.order)
    marks = [n for n, version in enumerate(seen.order) if version in ("v3", "failed")]
    last = marks[-1] if marks else first
    out = next((e.at for e in entries if e.kind == "StepEntered" and e.version == "v3"), None)
    back = next((e.at for e in entries if e.kind == "RollbackDecided" and e.version == "v3"), None)
    return Undoing(
        requests=max(0, last - first + 1),
        bad=len(seen.bad),
        virtual_seconds=(back - out).total_seconds() if out and back else float("nan"),
    )


def expectations(
    cloud: LocalCloud,
    registry: Registry,
    audience: Audience,
    facts: Mapping[str, Undoing],
    *,
    before_v3: Mapping[str, int],
    marks: Mapping[str, int],
) -> list[Expectation]:
    """Say of each thing that the demo promises whether it was so."""
    functions = Functions(cloud.client("lambda"))
    found = []
    for endpoint, seen in audience.seen.items():
        state, entries = registry.endpoint(endpoint), registry.ledger(endpoint)
        ended = {r.candidate.pointer.version: r for r in registry.rollouts(endpoint)}
        alias = functions.alias(f"perch-{endpoint}").routing
        after = seen.order[marks[endpoint] :]
        wanted = {"v1": Phase.PROMOTED, "v2": Phase.PROMOTED, "v3": Phase.ROLLED_BACK}
        phases = {version: ended[version].phase for version in wanted if version in ended}
        reason = ended["v3"].reason if "v3" in ended else ""
        stable = state.stable.lambda_version if state.stable else "?"
        found += [
            Expectation(f"{endpoint}: v1 and v2 promoted, v3 rolled back", phases == wanted, str(phases)),
            Expectation(
                f"{endpoint}: not one request failed while v2 took over",
                before_v3[endpoint] == 0,
                f"{before_v3[endpoint]} failed",
            ),
            Expectation(f"{endpoint}: v3 was taken back because an alarm went off", "alarm" in reason, reason),
            Expectation(
                f"{endpoint}: the alias is back at 100% v2",
                alias == Routing(version=stable) and _version(state) == "v2",
                f"alias {alias}, stable {_version(state)}",
            ),
            Expectation(
                f"{endpoint}: every request after the roll-back was answered by v2",
                bool(after) and set(after) == {"v2"},
                f"answered by {sorted(set(after))}",
            ),
            Expectation(
                f"{endpoint}: v2 is more accurate on live traffic than v1",
                seen.accuracy("v2") > seen.accuracy("v1"),
                f"{seen.accuracy('v1'):.1%}, then {seen.accuracy('v2'):.1%}",
            ),
            Expectation(
                f"{endpoint}: v3 broke for few: under 5% of all requests, {facts[endpoint].bad} in number",
                0 < facts[endpoint].bad < 0.05 * len(seen.order),
                f"{facts[endpoint].bad} of {len(seen.order)}",
            ),
            Expectation(f"{endpoint}: the ledger's chain is whole", broken_at(entries) is None, "an entry was altered"),
        ]
    return found


def _version(state: object) -> str:
    stable = getattr(state, "stable", None)
    return stable.pointer.version if stable and stable.pointer else "nothing"


def _timeline(endpoint: str, entries: list[Entry], started: datetime) -> Table:
    table = Table("virtual time", "what", "version", "why", title=endpoint, box=box.SIMPLE_HEAD, title_style="bold")
    for entry in entries:
        if entry.kind in _LEFT_OUT:
            continue
        # An S3 event's time is in whole seconds, so the first may lie a moment before the start.
        hours, seconds = divmod(max(0.0, (entry.at - started).total_seconds()), 3600)
        colour = _COLOURS.get(entry.kind, "")
        table.add_row(
            f"+{hours:.0f} h {seconds // 60:02.0f} min",
            Text(entry.kind, style=colour),
            entry.version or "",
            Text(entry.reason, overflow="fold"),
        )
    return table


def _versions(endpoint: str, seen: Seen) -> Table:
    table = Table("version", "answers", "right", box=box.SIMPLE_HEAD, title=f"{endpoint}: who answered")
    for version in sorted(seen.served):
        table.add_row(version, f"{seen.served[version]:,}", f"{seen.accuracy(version):.1%}")
    table.add_row("failed", f"{len(seen.bad):,}", "")
    return table
