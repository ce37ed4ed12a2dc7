"""The story of a rollout, for somebody who was asleep: what happened, why, by which rules, and how to check it.

A pure function of the rollout, its ledger and its looks; `explain.py` reads these and prints the story. A section is a
heading with sentences and, at most, one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from perch.cli.durations import span
from perch.cli.saying import say_odds, say_rules
from perch.cli.show import when
from perch.domain.evidence import Arm, Minute
from perch.domain.guards import Says, say_e, say_failures, weigh_up
from perch.domain.judge import Verdict
from perch.domain.ledger import Entry
from perch.domain.look import Look
from perch.domain.moves import say_step
from perch.domain.policy import GuardPolicy
from perch.domain.rejudge import as_it_was, minute_of
from perch.domain.rollout import LEGAL, Phase, Rollout
from perch.domain.tally import Tally, in_force, weigh

_CAUSES = {
    "upload": "its model was uploaded",
    "code": "new code was deployed",
    "manual": "somebody started it",
    "rollback": "somebody went back to it",
    "experiment": "an experiment changed",
}


@dataclass(frozen=True)
class Section:
    """A heading, its sentences, and perhaps a table (its first row holds the headings)."""

    heading: str
    sentences: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def tell(
    rollout: Rollout, entries: Sequence[Entry], looks: Sequence[Look], *, every_look: bool = False
) -> list[Section]:
    """Tell a rollout.

    Args:
        rollout: as it is now, or as it ended.
        entries: its ledger entries, in order.
        looks: its looks, in order; those of the first days may be gone.
        every_look: tell every look with its counts, not only those that changed something.

    Returns:
        Sections in the order to be read in.
    """
    tallies = list(_tallies(rollout, looks))
    sections = [
        Section(title(rollout), tuple(_what(rollout, entries))),
        Section("The rules", tuple(_rules(rollout))),
        Section("What was usual", tuple(e.reason for e in entries if e.kind == "BaselineFrozen")),
        Section("What happened", table=_events(rollout, entries)),
        Section("What was counted, step by step", table=_steps(rollout, looks)),
        _looks(rollout, looks, tallies, every_look=every_look),
        Section("The verdict", tuple(_verdict(rollout, entries, looks, tallies))),
        Section("To check it by hand", tuple(_check(rollout, looks))),
    ]
    return [section for section in sections if section.sentences or len(section.table) > 1]


def title(rollout: Rollout) -> str:
    """Say in a line what became of a rollout."""
    ended = not LEGAL[rollout.phase]
    length = span(rollout.phase_at - rollout.started_at)
    how = f"{rollout.phase.value} after {length}" if ended else f"still {rollout.phase.value}"
    return f"{rollout.id}: {rollout.candidate.label} instead of {rollout.stable.label}, {how}"


# -- what, why, by which rules ------------------------------------------------------------------------------------


def _what(rollout: Rollout, entries: Sequence[Entry]) -> Iterator[str]:
    new, pointer = rollout.candidate, rollout.candidate.pointer
    yield (
        f"On {when(rollout.started_at)} UTC endpoint {rollout.endpoint} began to roll out {new.label}, because "
        f"{_CAUSES.get(new.cause, new.cause)} ({new.actor})."
    )
    yield f"The model is {pointer.key}, SHA-256 {pointer.sha256[:16]}…, {pointer.size:,} bytes."
    if rollout.revision:
        yield (
            f"It was published as Lambda version {rollout.revision.lambda_version}; until then, {rollout.stable.label} "
            "had all the traffic."
        )
    said = {entry.actor for entry in entries} - {"perch", "judge", new.actor}
    if said:
        yield f"Others who had a hand in it: {', '.join(sorted(said))}."
    yield f"Now: {rollout.phase.value}, since {when(rollout.phase_at)} UTC: {rollout.reason}."


def _rules(rollout: Rollout) -> Iterator[str]:
    policy, guards = rollout.policy, rollout.guards
    if not policy.steps:
        yield "It went direct: probes, then all the traffic at once. Nothing was compared."
        return
    yield f"Strategy {policy.strategy}, in {len(policy.steps)} steps:"
    for i, rules in enumerate(say_rules(policy)):
        yield f"- step {i + 1}: {rules}"
    settle, deadline = (span(timedelta(seconds=s)) for s in (policy.settle_s, policy.deadline_s))
    then = "it is taken back" if policy.at_deadline == "roll back" else "it waits for a person"
    yield f"A minute counts once it is {settle} old. A step that is not decided within {deadline}: {then}."
    yield (
        "A candidate that is as good as stable is ever taken back by chance with a probability of at most "
        f"{guards.alpha:.4g}, so evidence must reach E = {1 / guards.alpha:.4g}; at most {guards.error_rate:.4g} of "
        "its requests may fail."
    )
    others = list(_thresholds(guards))
    if others:
        yield f"Thresholds, which promise nothing about chance: {', '.join(others)}."
    if guards.dry_run:
        yield f"Only reported, in a dry run: {', '.join(guards.dry_run)}."


def _thresholds(guards: GuardPolicy) -> Iterator[str]:
    for name, value in (
        ("failed share above {}", guards.error_threshold),
        ("more than {} times stable's failed share", guards.error_increase),
        ("p95 above {} times stable's usual", guards.latency_p95_times),
        ("p99 above {} times stable's usual", guards.latency_p99_times),
        ("p99 above {} ms", guards.latency_p99_ms),
    ):
        if value is not None:
            yield name.format(f"{value:.4g}")


# -- what happened ------------------------------------------------------------------------------------------------


def _events(rollout: Rollout, entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    rows = [
        (when(e.at), f"{minute_of(rollout, e.at):.0f}" if rollout.shifts else "", e.kind, e.reason, e.actor)
        for e in entries
    ]
    return (("time (UTC)", "minute", "what", "why", "who"), *rows)


def _steps(rollout: Rollout, looks: Sequence[Look]) -> tuple[tuple[str, ...], ...]:
    """Sum up the minutes of each step that was entered; those in which the traffic was moved belong to none."""
    sums: dict[int, tuple[Arm, Arm, int]] = {}
    for minute in (minute for look in looks for minute in look.minutes):
        shift = in_force(rollout, minute.at)
        if shift:
            ours, theirs, count = sums.get(shift.step, (Arm(), Arm(), 0))
            # Counts of slow requests and predictions may change their measures on the way; they are not shown here.
            plain = [Arm(requests=arm.requests, failures=arm.failures) for arm in (minute.candidate, minute.stable)]
            sums[shift.step] = (ours + plain[0], theirs + plain[1], count + 1)
    rows = []
    for i, step in enumerate(rollout.policy.steps):
        entered = next((shift.at for shift in rollout.shifts if shift.step == i), None)
        if entered is None:
            continue
        ours, theirs, count = sums.get(i, (Arm(), Arm(), 0))
        weights = list(dict.fromkeys(say_step(step, shift.weight) for shift in rollout.shifts if shift.step == i))
        rows.append(
            (
                f"{i + 1}",
                " → ".join(weights),
                when(entered),
                f"{count}",
                f"{ours.failures:,} of {ours.requests:,}",
                f"{theirs.failures:,} of {theirs.requests:,}",
            )
        )
    return (("step", "share", "from (UTC)", "minutes", "candidate failed", "stable failed"), *rows)


def _tallies(rollout: Rollout, looks: Sequence[Look]) -> Iterator[tuple[Rollout, Tally]]:
    """Yield the rollout and its tally as they were at each look."""
    tally: Tally | None = None
    for look in looks:
        then = as_it_was(rollout, look)
        tally = weigh(tally or Tally(until=look.minutes[0].at if look.minutes else look.at), look.minutes, then)
        yield then, tally


def _looks(
    rollout: Rollout, looks: Sequence[Look], tallies: Sequence[tuple[Rollout, Tally]], *, every_look: bool
) -> Section:
    if every_look:
        headings = ("minute", "step", "candidate failed", "stable failed", "E together", "guards (E)", "verdict", "why")
        rows = [_full_row(rollout, look, then, tally) for look, (then, tally) in zip(looks, tallies, strict=True)]
        return Section(f"Every look ({len(looks)})", table=(headings, *rows))
    changed = [look for look, before in zip(looks, (None, *looks), strict=False) if _changed(look, before)]
    rows = [
        (f"{minute_of(rollout, k.at):.0f}", f"{k.step + 1}", k.judgement.verdict.value, k.judgement.reason)
        for k in changed
    ]
    told = f"The judge looked {len(looks)} times; these looks changed something (`--looks` tells them all)."
    return Section("What the judge said", (told,) if looks else (), (("minute", "step", "verdict", "why"), *rows))


def _full_row(rollout: Rollout, look: Look, then: Rollout, tally: Tally) -> tuple[str, ...]:
    ours, theirs = (_summed(look.minutes, arm) for arm in ("candidate", "stable"))
    es = [
        f"{f.guard} {'objects' if f.log_e is None else say_e(f.log_e)}{' (dry run)' if f.dry_run else ''}"
        for f in look.judgement.findings
        if f.log_e is not None or f.says is Says.OBJECTS
    ]
    return (
        f"{minute_of(rollout, look.at):.0f}",
        f"{look.step + 1} ({100 * look.weight:.4g}%)",
        ours,
        theirs,
        say_e(weigh_up(then, tally, look.replayed).log_e),
        ", ".join(es),
        look.judgement.verdict.value,
        look.judgement.reason,
    )


def _changed(look: Look, before: Look | None) -> bool:
    """Whether a look changed the course, or a guard's or an alarm's word."""
    said = look.judgement
    if said.verdict is not Verdict.CONTINUE or said.weight:
        return True
    was = before.judgement if before else None
    now = (said.gate, _objecting(look), {alarm.name for alarm in look.alarms}, look.paused)
    if before is None or was is None:
        return any(now)
    return now != (was.gate, _objecting(before), {alarm.name for alarm in before.alarms}, before.paused)


def _objecting(look: Look) -> set[str]:
    return {finding.guard for finding in look.judgement.findings if finding.says is Says.OBJECTS}


def _summed(minutes: Sequence[Minute], arm: str) -> str:
    counted: list[Arm] = [getattr(minute, arm) for minute in minutes]
    return f"{sum(one.failures for one in counted):,} of {sum(one.requests for one in counted):,}"


# -- the verdict --------------------------------------------------------------------------------------------------


def _verdict(
    rollout: Rollout, entries: Sequence[Entry], looks: Sequence[Look], tallies: Sequence[tuple[Rollout, Tally]]
) -> Iterator[str]:
    decided = next((e for e in entries if e.kind in ("PromotionDecided", "RollbackDecided", "RolloutRefused")), None)
    if decided is None:
        yield f"None yet: {rollout.reason}."
    else:
        what = {"PromotionDecided": "to promote it", "RollbackDecided": "to take it back"}.get(
            decided.kind, "to refuse it"
        )
        at = f", minute {minute_of(rollout, decided.at):.0f}" if rollout.shifts else ""
        yield f"{decided.actor} decided {what} at {when(decided.at)} UTC{at}: {decided.reason}."
    if rollout.phase is Phase.REFUSED:
        yield "No user was ever answered by it."
    if not looks:
        return
    then, tally = tallies[-1]
    yield f"Counted until then: {say_failures(tally.candidate, tally.stable)}."
    yield f"{say_odds(then, tally).capitalize()}."
    yield f"It cost {tally.excess:,.3g} failed requests more than stable would have had."
    for finding in looks[-1].judgement.findings:
        worth = f" (E = {say_e(finding.log_e)})" if finding.log_e is not None else ""
        guard = finding.guard + (", dry run" if finding.dry_run else "")
        yield f"- {guard}, {finding.says.value}: {finding.reason}{worth}"


def _check(rollout: Rollout, looks: Sequence[Look]) -> Iterator[str]:
    """Say what anybody can do again with the counts: first with a pencil, then exactly."""
    counted = [minute for look in looks for minute in look.minutes if in_force(rollout, minute.at)]
    if not counted:
        return
    both = [m for m in counted if m.candidate.requests and m.stable.requests]
    failed = sum(m.candidate.failures for m in both)
    expected = sum(
        (m.candidate.failures + m.stable.failures) * m.candidate.requests / (m.candidate.requests + m.stable.requests)
        for m in both
    )
    yield (
        "With a pencil: were both revisions alike, the failures of each minute would fall on them as its requests did. "
        f"Over {len(both)} minutes with requests to both, that makes {expected:,.3g} failures of the candidate; it had "
        f"{failed:,}."
    )
    yield (
        "Exactly: given a minute's requests of both and its failures together, the candidate's failures x follow "
        "Fisher's noncentral hypergeometric distribution f(x; θ), θ being the odds ratio "
        "(`scipy.stats.nchypergeom_fisher`). E of the guard `errors` is the mean over θ > 1, by the weights in "
        "`perch.domain.sequential.PRIOR`, of the product over minutes of f(x; θ) / f(x; 1)."
    )
    yield (
        f"`perch rollouts explain {rollout.id} --json` gives each minute's counts and what every guard made of them; "
        f"`perch replay {rollout.id} --policy perch.toml` judges them again, by these rules or by others."
    )
