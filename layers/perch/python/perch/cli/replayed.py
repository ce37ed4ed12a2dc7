"""`perch rollouts shadow`: what the replays of a rollout showed, in a shadow step or in paired mode."""

from __future__ import annotations

from typing import Annotated

import typer

from perch.cli.context import Context
from perch.cli.show import Json, emit, line, table, when
from perch.domain.agreement import Histogram, Replayed, ready
from perch.domain.errors import NotFound
from perch.domain.rollout import Rollout

_QUANTILES = (0.5, 0.95, 0.99)


def shadow(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Id of a rollout, as `perch rollouts list` shows it.")],
    as_json: Json = False,
) -> None:
    """Show how the candidate answers what stable was asked.

    Captured requests are replayed to it in a shadow step, and to both revisions in paired mode.
    """
    place: Context = ctx.obj
    endpoint, _, number = rollout.rpartition("-")
    registry = place.world.registry
    found = registry.rollout(endpoint, rollout) if endpoint and number.isdigit() else None
    if found is None:
        raise NotFound(f"there is no rollout {rollout!r}; `perch rollouts list` lists those that there are")
    replayed = registry.replayed(endpoint, rollout) or Replayed()
    needed = pairs_needed(found)
    verdict, reason = ready(replayed, pairs_needed=needed, agreement=found.policy.agreement)
    if as_json:
        emit(_document(found, replayed, verdict, reason))
        return
    line(f"{found.id}: {found.candidate.label} against {found.stable.label}", "bold")
    line({True: "ready", False: "not ready", None: "not known yet"}[verdict] + f": {reason}")
    arms = {"stable": replayed.stable_ms, "candidate": replayed.candidate_ms}
    table(
        ("ms", "p50", "p95", "p99", "requests"),
        ((name, *map(_number, _of(arm)), f"{arm.count:,}") for name, arm in arms.items() if arm.count),
        empty="no request was answered by both yet",
    )
    if replayed.moved.count:
        usual, _, most = map(_number, _of(replayed.moved))
        line(f"Of the probabilities of an answer, the one that changed most moved by {usual} (p50), {most} (p99).")
    if replayed.differences:
        table(
            ("request", "what", "stable", "candidate"),
            ((d.request_id, d.what, d.stable, d.candidate) for d in replayed.differences),
            empty="",
        )
    if replayed.until:
        line(f"Requests up to {when(replayed.until)} UTC were replayed; {replayed.skipped:,} skipped.")


def pairs_needed(rollout: Rollout) -> int:
    """Return how many compared answers a rollout asks for: what its shadow steps need, at least one."""
    return max((step.requests for step in rollout.policy.steps if step.kind == "shadow"), default=1)


def _document(rollout: Rollout, replayed: Replayed, verdict: bool | None, reason: str) -> dict[str, object]:
    return {
        "rollout": rollout.id,
        "ready": verdict,
        "reason": reason,
        "pairs_needed": pairs_needed(rollout),
        "agreement_needed": rollout.policy.agreement,
        "pairs": replayed.pairs,
        "compared": replayed.compared,
        "agreed": replayed.agreed,
        "agreement": replayed.agreement,
        "candidate_failed_only": replayed.candidate_failed_only,
        "stable_failed_only": replayed.stable_failed_only,
        "both_failed": replayed.both_failed,
        "skipped": replayed.skipped,
        "log_e_worse": replayed.log_e_worse(),
        "stable_ms": _named(replayed.stable_ms),
        "candidate_ms": _named(replayed.candidate_ms),
        "probabilities_moved": _named(replayed.moved),
        "differences": replayed.differences,
        "until": replayed.until,
        "exhausted": replayed.exhausted,
    }


def _of(histogram: Histogram) -> tuple[float | None, ...]:
    return tuple(histogram.quantile(q) for q in _QUANTILES)


def _named(histogram: Histogram) -> dict[str, float | None]:
    return dict(zip(("p50", "p95", "p99"), _of(histogram), strict=True))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
