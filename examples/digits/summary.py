"""What the demo tells at its end: a timeline with reasons, what each version did, and whether it was as expected.

The timeline is the registry's ledger; requests, failures and accuracy are counted from what the traffic was answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.digits.audience import Audience, Seen
from examples.digits.train import Version
from perch.aws.functions import Functions
from perch.aws.registry import Registry
from perch.domain.judge import Verdict
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
class Tried:
    """A stretch of an endpoint's answers, from number `since` to before `until`, in which a version was tried out."""

    version: Version
    endpoint: str
    since: int
    until: int


@dataclass(frozen=True)
class Undoing:
    """How fast a broken version was taken back: requests from its first failure to its last answer, and virtual time.

    `reason` is what was said when that was decided, by `actor`.
    """

    requests: int
    bad: int
    virtual_seconds: float
    reason: str
    actor: str


def show(
    console: Console,
    cloud: LocalCloud,
    registry: Registry,
    audience: Audience,
    tried: Sequence[Tried],
    *,
    started: datetime,
) -> None:
    """Print the timeline, the numbers, and how each broken version was taken back."""
    for endpoint, seen in audience.seen.items():
        entries = registry.ledger(endpoint)
        console.print()
        console.print(_timeline(endpoint, entries, started))
        console.print(_versions(endpoint, seen))
        for trial in tried:
            if trial.endpoint == endpoint:
                _show_undoing(console, trial, undoing(seen, entries, trial))
    console.print(
        f"\n{audience.total:,} requests, {audience.failed} failed; "
        f"{(cloud.clock.now() - started).total_seconds() / 3600:.1f} virtual hours."
    )


def undoing(seen: Seen, entries: list[Entry], trial: Tried) -> Undoing:
    """Count from the first failed request to the last answer of a version (a failed one does not name its version)."""
    answers = seen.order[trial.since : trial.until]
    first = next((n for n, version in enumerate(answers) if version == "failed"), len(answers))
    marks = [n for n, version in enumerate(answers) if version in (trial.version, "failed")]
    out = next((e for e in entries if e.kind == "StepEntered" and e.version == trial.version), None)
    back = next((e for e in entries if e.kind == "RollbackDecided" and e.version == trial.version), None)
    return Undoing(
        requests=max(0, marks[-1] - first + 1) if marks else 0,
        bad=answers.count("failed"),
        virtual_seconds=(back.at - out.at).total_seconds() if out and back else float("nan"),
        reason=back.reason if back else "nothing was decided",
        actor=back.actor if back else "nobody",
    )


def expectations(
    cloud: LocalCloud,
    registry: Registry,
    audience: Audience,
    tried: Sequence[Tried],
    *,
    before_v3: Mapping[str, int],
    marks: Mapping[str, int],
) -> list[Expectation]:
    """Say of each thing that the demo promises whether it was so."""
    functions = Functions(cloud.client("lambda"))
    found = []
    for endpoint, seen in audience.seen.items():
        state, entries = registry.endpoint(endpoint), registry.ledger(endpoint)
        trials = [trial for trial in tried if trial.endpoint == endpoint]
        alias = functions.alias(f"perch-{endpoint}").routing
        after = seen.order[marks[endpoint] :]
        wanted = dict.fromkeys(("v1", "v2"), Phase.PROMOTED) | {t.version: Phase.ROLLED_BACK for t in trials}
        phases = {r.candidate.pointer.version: r.phase for r in registry.rollouts(endpoint)}
        stable = state.stable.lambda_version if state.stable else "?"
        found += [
            Expectation(
                f"{endpoint}: v1 and v2 promoted, {' and '.join(t.version for t in trials)} rolled back",
                phases == wanted,
                str(phases),
            ),
            Expectation(
                f"{endpoint}: not one request failed while v2 took over",
                before_v3[endpoint] == 0,
                f"{before_v3[endpoint]} failed",
            ),
            Expectation(
                f"{endpoint}: v2 is more accurate on live traffic than v1",
                seen.accuracy("v2") > seen.accuracy("v1"),
                f"{seen.accuracy('v1'):.1%}, then {seen.accuracy('v2'):.1%}",
            ),
            *(one for trial in trials for one in _of_broken(cloud, registry, seen, entries, trial)),
            Expectation(
                f"{endpoint}: the alias is back at 100% v2",
                alias == Routing(version=stable) and _version(state) == "v2",
                f"alias {alias}, stable {_version(state)}",
            ),
            Expectation(
                f"{endpoint}: every request after the last roll-back was answered by v2",
                bool(after) and set(after) == {"v2"},
                f"answered by {sorted(set(after))}",
            ),
            Expectation(f"{endpoint}: the ledger's chain is whole", broken_at(entries) is None, "an entry was altered"),
        ]
    return found


def _of_broken(
    cloud: LocalCloud, registry: Registry, seen: Seen, entries: list[Entry], trial: Tried
) -> Iterator[Expectation]:
    """Say of a broken version what it cost, and that what should have seen it did."""
    name, back = f"{trial.endpoint}: {trial.version}", undoing(seen, entries, trial)
    yield Expectation(
        f"{name} broke for few: under 5% of all requests, {back.bad} in number",
        0 < back.bad < 0.05 * len(seen.order),
        f"{back.bad} of {len(seen.order)}",
    )
    if trial.version == "v3":
        yield Expectation(f"{name} was taken back because an alarm went off", "alarm" in back.reason, back.reason)
        return
    rollout = next(r for r in registry.rollouts(trial.endpoint) if r.candidate.pointer.version == trial.version)
    rang = _alarms_since(cloud, trial.endpoint, rollout.started_at)
    yield Expectation(f"{name} set off no alarm", not rang, ", ".join(rang))
    yield Expectation(
        f"{name} was taken back by the judge, which compared it with v2",
        back.actor == "judge" and _COMPARED.search(back.reason) is not None,
        f"by {back.actor}: {back.reason}",
    )
    last = [look.judgement for look in registry.looks(trial.endpoint, rollout.id)][-1:]
    yield Expectation(
        f"{name}: the look that decided is in the registry, with what was counted",
        bool(last) and last[0].verdict is Verdict.ROLL_BACK and last[0].reason in back.reason,
        str(last),
    )


_COMPARED = re.compile(r"[\d,]+ of [\d,]+ candidate requests failed against [\d,]+ of [\d,]+ on stable.* E = .* ≥ 20; ")


def _alarms_since(cloud: LocalCloud, endpoint: str, since: datetime) -> list[str]:
    """The alarms of an endpoint that went off since a time; of those that were removed as well."""
    found = cloud.client("cloudwatch").describe_alarm_history(HistoryItemType="StateUpdate", StartDate=since)
    return [
        item["AlarmName"]
        for item in found["AlarmHistoryItems"]
        if item["AlarmName"].startswith(f"perch/{endpoint}/") and item["HistorySummary"].endswith("to ALARM")
    ]


def _show_undoing(console: Console, trial: Tried, back: Undoing) -> None:
    length = back.virtual_seconds
    took = f"{length:.0f} virtual seconds" if length < 600 else f"{length / 60:.0f} virtual minutes"
    console.print(
        f"{trial.endpoint}: {trial.version} was taken back {took} after its first traffic; {back.requests} requests "
        f"from its first bad answer to its last one, {back.bad} of them failed. By {back.actor}:",
        soft_wrap=True,
    )
    console.print(f"  {back.reason}", soft_wrap=True, style="italic")


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
