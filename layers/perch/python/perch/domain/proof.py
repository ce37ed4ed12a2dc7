"""Proof: what has to be shown of a candidate before a step that asks for it may end, and how far that has come.

Usually two claims, each an E value of its own: its failed share lies within the service level, and the odds of its
failures below the margin times stable's. Where one of them cannot be shown, or says nothing, another takes its place
(`prove`). The same value decides, says why in the ledger, and is drawn by `perch rollouts watch`.
"""

from __future__ import annotations

from dataclasses import dataclass

from perch.domain.agreement import Replayed
from perch.domain.evidence import Arm
from perch.domain.guards import beyond, level, say_e
from perch.domain.rollout import Rollout
from perch.domain.sequential import Share, enough
from perch.domain.tally import ERRORS, Tally, error_test, state_of

_TOO_FEW = 3.0  # failures: of fewer that were to be expected, none may well be luck


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One thing to be shown: its name, what it says, how the reason begins to say it, and log E of it."""

    name: str
    what: str
    said: str
    log_e: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The claims, whether all of them are shown, and a sentence part with their numbers."""

    claims: tuple[Claim, ...]
    shown: bool
    said: str


def prove(rollout: Rollout, tally: Tally, replayed: Replayed | None) -> Proof:
    """Say whether the candidate was shown to be no worse than stable and within its service level.

    Where the candidate failed nothing, and stable next to nothing, there is no odds ratio to be shown: the level is all
    that can be, as it is in a bake, where there is nothing to compare with. Where stable is beyond the level itself,
    being better than stable takes its place. Requests that were replayed to both count for the level like live ones.
    """
    guards, ours = rollout.guards, _counted(rollout, tally, replayed)
    test = error_test(guards)
    state = state_of(tally, ERRORS, test)
    within = _within(guards.error_rate, ours)
    if rollout.current_step.kind == "bake":
        return _proof(guards.alpha, (_within(level(rollout), ours),), ", with nothing to compare with")
    # What stable failed before the rollout may be over; then nobody can be shown to fail less than it.
    still = level(rollout) > guards.error_rate and not enough(within.log_e, guards.alpha)
    if still or beyond(guards, tally.stable):
        better = Claim(
            name="better",
            what="odds ratio below 1",
            said="better than stable, which is beyond its level,",
            log_e=test.log_e_below(state, 1.0),
        )
        return _proof(guards.alpha, (better,))
    if not ours.failures and not tally.candidate.failures and tally.expected < _TOO_FEW:
        said = f", and it failed nothing where stable would have failed {tally.expected:.2g}"
        return _proof(guards.alpha, (within,), said)
    below = f"odds ratio below {guards.margin:.4g}"
    no_worse = Claim(name="no worse", what=below, said=below, log_e=test.log_e_below(state, guards.margin))
    return _proof(guards.alpha, (within, no_worse))


def _within(limit: float, ours: Arm) -> Claim:
    log_e = Share(limit).log_e_within(ours.failures, ours.requests)
    what = f"at most {100 * limit:.4g}% fail"
    return Claim(name="within level", what=what, said=f"within {limit:.4g}", log_e=log_e)


def _proof(alpha: float, claims: tuple[Claim, ...], more: str = "") -> Proof:
    said = ", ".join(f"{claim.said} E = {say_e(claim.log_e)}" for claim in claims)
    shown = all(enough(claim.log_e, alpha) for claim in claims)
    return Proof(claims=claims, shown=shown, said=f"{said}{more}, needs {1 / alpha:.4g}")


def _counted(rollout: Rollout, tally: Tally, replayed: Replayed | None) -> Arm:
    """The candidate's counts of minutes in which stable kept its level, and of replays in paired mode."""
    if replayed is None or not rollout.policy.paired:
        return tally.fair
    failed = replayed.candidate_failed_only + replayed.both_failed
    return tally.fair + Arm(requests=replayed.pairs, failures=failed)
