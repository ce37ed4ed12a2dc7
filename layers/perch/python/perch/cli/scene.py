"""The picture of a rollout under way: a pure function from what is known of it to something that rich can draw.

    where it is · its steps · what both revisions did · each guard's evidence on its way to 1/alpha · the judge's word

Bars are logarithmic: from E = 1 (no evidence) to what is enough. Guards are added up to one sum, and only that decides.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perch.cli.durations import span
from perch.cli.saying import say_odds, say_rules, waits_at_gate
from perch.domain.evidence import Arm
from perch.domain.guards import Finding, Says, say_e, weigh_up
from perch.domain.look import Look
from perch.domain.moves import say_step
from perch.domain.policy import who_answers
from perch.domain.proof import prove
from perch.domain.rollout import LEGAL, Phase, Rollout
from perch.domain.tally import Tally

_BAR = 20  # characters
_PHASES = {
    Phase.PROMOTED: "bold green",
    Phase.PROMOTING: "green",
    Phase.ROLLED_BACK: "bold red",
    Phase.ROLLING_BACK: "bold red",
    Phase.REFUSED: "bold red",
}


def scene(
    rollout: Rollout, tally: Tally | None, look: Look | None, now: datetime, *, paused: str = ""
) -> RenderableType:
    """Draw a rollout.

    Args:
        rollout: the rollout.
        tally: what was counted so far; None before the first look.
        look: what the judge says of it now; None while no step is under way.
        now: the time, for what is left of a hold.
        paused: why the endpoint is paused, if it is.

    Returns:
        A panel, as wide as the console that draws it (from 60 columns on).
    """
    parts: list[RenderableType] = [_headline(rollout, now)]
    if rollout.policy.steps:
        parts.append(_steps(rollout, now))
    if tally and (tally.candidate.requests or tally.stable.requests):
        parts.append(_arms(rollout, tally))
    if tally and look:
        parts.append(_evidence(rollout, tally, look))
    parts.append(_words(rollout, look, paused or (look.paused if look else "")))
    spaced = [part for one in parts for part in (one, Text(""))][:-1]
    return Panel(Group(*spaced), title=rollout.id, title_align="left", border_style=_PHASES.get(rollout.phase, "cyan"))


def _headline(rollout: Rollout, now: datetime) -> Text:
    text = Text(f"{rollout.candidate.label} instead of {rollout.stable.label}: ", style="bold")
    text.append(rollout.phase.value, style=_PHASES.get(rollout.phase, "bold yellow"))
    ended = not LEGAL[rollout.phase]
    length = span((rollout.phase_at if ended else now) - rollout.started_at)
    return text.append(f" {'after' if ended else 'for'} {length}", style="")


def _steps(rollout: Rollout, now: datetime) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(no_wrap=True)
    grid.add_column()
    rules = say_rules(rollout.policy)
    for i, (step, asked) in enumerate(zip(rollout.policy.steps, rules, strict=True)):
        here = i == rollout.step and rollout.phase is Phase.SHIFTING
        passed = i < rollout.step or rollout.phase in (Phase.PROMOTING, Phase.PROMOTED)
        left = Text(asked)
        if here and (more := rollout.phase_at + timedelta(seconds=step.hold_s) - now) > timedelta(0):
            left.append(f"  {span(more)} left", style="bold yellow")
        if here and rollout.weight != step.weight:
            left.append(f"  now at {say_step(step, rollout.weight)}", style="bold yellow")
        fell = i == rollout.step and rollout.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
        mark, style = ("▶", "bold yellow") if here else ("✓", "green") if passed else ("·", "dim")
        if fell:
            mark, style = "✗", "red"
        left.style = "" if here else style
        grid.add_row(Text(mark, style=style), Text(f"step {i + 1}", style=style), left)
    return grid


def _arms(rollout: Rollout, tally: Tally) -> Group:
    counts = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("", "requests", "failed", "share", "this step", "failed"):
        counts.add_column(name, justify="left" if not name else "right")
    ours, theirs = tally.of_step(rollout.step)
    for name, arm, of_step in (("candidate", tally.candidate, ours), ("stable", tally.stable, theirs)):
        counts.add_row(
            name,
            f"{arm.requests:,}",
            f"{arm.failures:,}",
            _share(arm),
            f"{of_step.requests:,}",
            f"{of_step.failures:,}",
        )
    lines = [say_odds(rollout, tally)]
    if rollout.policy.budget is not None:
        lines.append(f"failures beyond what stable had: {tally.excess:,.3g} of a budget of {rollout.policy.budget:,}")
    return Group(counts, Text("\n".join(lines)))


def _evidence(rollout: Rollout, tally: Tally, look: Look) -> Table:
    """Draw what speaks against the candidate, guard by guard, and what speaks for it where the step asks for proof."""
    alpha = rollout.guards.alpha
    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row("", Text("against", style="dim"), Text("      E", style="dim"), "")
    together = weigh_up(rollout, tally, look.replayed).log_e
    enough = Text(f"of {1 / alpha:.4g}, which rolls back", style="dim")
    grid.add_row(Text("all guards", style="bold"), _bar(together, alpha), _number(together, alpha), enough)
    for finding in look.judgement.findings:
        grid.add_row(f"  {finding.guard}", *_guard(finding, alpha))
    if rollout.phase is not Phase.SHIFTING or not rollout.current_step.proof:
        return grid
    grid.add_row("", Text("in favour", style="dim"), "", "")
    for claim in prove(rollout, tally, look.replayed).claims:
        said = Text(f"of {1 / alpha:.4g}: {claim.what}", style="dim")
        bar, number = _bar(claim.log_e, alpha, good=True), _number(claim.log_e, alpha, good=True)
        grid.add_row(f"  {claim.name}", bar, number, said)
    return grid


def _guard(finding: Finding, alpha: float) -> tuple[Text, Text, Text]:
    objects = finding.says is Says.OBJECTS
    said = Text()
    if objects:
        said.append("objects", style="bold red")
    if finding.dry_run:
        said.append(", dry run" if objects else "dry run", style="dim")
    if finding.log_e is None:
        return (
            Text("over its limit" if objects else "within its limit", style="red" if objects else "dim"),
            Text(),
            said,
        )
    return _bar(finding.log_e, alpha), _number(finding.log_e, alpha), said


def _words(rollout: Rollout, look: Look | None, paused: str) -> Text:
    lines: list[tuple[str, str]] = []
    if paused:
        lines.append((f"paused: {paused}", "bold yellow"))
    if waits_at_gate(rollout):
        gate = who_answers(rollout.current_step.gate)
        how = f"perch rollouts answer {rollout.id} {rollout.step + 1} --yes --reason …"
        lines.append((f"the gate of step {rollout.step + 1} is open and waits for {gate}: {how}", "bold yellow"))
    if look:
        lines += [(f"alarm {alarm.name}: {alarm.reason}", "bold red") for alarm in look.alarms]
        dry = [f for f in look.judgement.findings if f.dry_run and f.says is Says.OBJECTS]
        lines += [(f"{finding.guard}, in a dry run: {finding.reason}", "red") for finding in dry]
        if look.replayed:
            lines.append((f"replayed: {look.replayed.summary()}", ""))
        lines.append((f"judge: {look.judgement.verdict.value}: {look.judgement.reason}", ""))
    else:
        lines.append((rollout.reason, ""))
    text = Text()
    for i, (said, style) in enumerate(lines):
        text.append("\n" * bool(i) + said, style=style)
    return text


def _bar(log_e: float, alpha: float, *, good: bool = False) -> Text:
    """Draw E on its way from 1 to 1/alpha; below 1 it is evidence of the contrary and draws nothing."""
    full = -math.log(alpha)
    done = max(0.0, min(log_e / full, 1.0)) if full > 0 else 1.0
    whole, rest = divmod(round(done * _BAR * 8), 8)
    drawn = "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    text = Text(drawn, style=_shade(done, good=good))
    return text.append("·" * (_BAR - len(drawn)), style="dim")


def _shade(done: float, *, good: bool) -> str:
    if good:
        return "green" if done >= 1 else "cyan"
    return "bold red" if done >= 1 else "yellow" if done >= 0.5 else "green"


def _number(log_e: float, alpha: float, *, good: bool = False) -> Text:
    done = log_e / -math.log(alpha)
    return Text(
        ("<0.001" if log_e < math.log(0.001) else say_e(log_e)).rjust(7),
        style=_shade(done, good=good) if done > 0 else "dim",
    )


def _share(arm: Arm) -> str:
    return f"{arm.rate:.2%}" if arm.requests else "-"
