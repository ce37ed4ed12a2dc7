"""Policies: what perch.toml declares of each endpoint, in the canonical form that is deployed beside the functions.

The text comes from the `perch_settings` package (written at synth, see docs/contracts.md); here it becomes frozen
values. Weights are fractions of traffic in (0, 1); times are seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from perch.domain.codec import load
from perch.domain.errors import NotFound
from perch.domain.evidence import CustomMetric


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a rollout: a share of traffic, held for a time, until its evidence is there.

    `weight` is the candidate's share: 0 is a shadow (users see nothing of it), 1 a bake (stable is kept for the way
    back), anything between a canary. With `watch` the step comes after the candidate has proved itself: it only looks
    out for what shows later (a bake, or a reverse holdback, which leaves the rest on the old revision).

    A step ends after `hold_s` seconds and `requests` requests to the candidate (in a shadow: compared answers), with
    `proof` only when the candidate was shown to be no worse than stable and within its error rate, and with a `gate`
    only when that was answered: `person`, or the name that a hook listens for.
    """

    weight: float
    hold_s: int
    requests: int = 0
    proof: bool = False
    gate: str = ""
    watch: bool = False

    @property
    def kind(self) -> str:
        """`shadow`, `canary`, `bake` or `holdback`."""
        if self.weight in (0.0, 1.0):
            return "bake" if self.weight else "shadow"
        return "holdback" if self.watch else "canary"


def who_answers(gate: str) -> str:
    """Say who answers the gate of a step."""
    return "a person" if gate == "person" else f"the hook {gate!r}"


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy:
    """How traffic moves: the steps in order, then 100 %. No steps means all at once.

    `settle_s` is how old a minute of metrics must be before it counts (CloudWatch publishes late, up to 3 minutes);
    `deadline_s` how long one step may wait for its evidence, and `at_deadline` what then happens (`roll back`, or
    `hold` until a person decides). `when_busy` says what a new candidate does to a rollout under way: it waits
    (`queue`) or takes its place (`supersede`).

    `agreement` is the share of a shadow's compared answers that must agree, numbers within `tolerance`. `paired` is how
    many requests may be replayed to both revisions where live traffic is thin; 0 is none. `budget` caps the failed
    requests that a candidate may cost over what stable would have: weights stay below what it allows, and an undecided
    step may raise its own up to `ceiling`. For `way_back_s` after a promotion, going back to what served before skips
    the steps.
    """

    strategy: str = "direct"
    steps: tuple[Step, ...] = ()
    settle_s: int = 180
    deadline_s: int = 604_800
    at_deadline: str = "roll back"
    when_busy: str = "queue"
    agreement: float = 0.95
    tolerance: float = 1e-3
    paired: int = 0
    budget: int | None = None
    ceiling: float = 0.35
    way_back_s: int = 86_400


@dataclass(frozen=True, kw_only=True)
class GuardPolicy:
    """What is watched.

    The sequential guards share `alpha`, the chance that a candidate which is as good as stable and within its service
    level is ever taken back by them. `error_rate` is that service level, the largest failed share; `margin` the odds
    ratio of failures that "not worse" rules out; `latency_odds` how much the odds of being slower than stable's usual
    p50, p95 and p99 may grow; `shift_odds` by how much the odds of any class or range of predictions may change (None:
    not watched); `custom` are counts of the user's own, compared like failures.

    The others are thresholds, without any such promise, and None where not wanted: `error_threshold` on the failed
    share, `error_increase` on how many times stable's share it is, `latency_p95_times` and `latency_p99_times` on how
    many times stable's usual latency, `latency_p99_ms` in milliseconds. They speak after `min_errors` failures (or slow
    answers) and `min_requests` requests.

    `check_s` is how much time lies between two looks at least. Guards named in `dry_run` report, and stop nothing.
    """

    error_rate: float = 0.05
    alpha: float = 0.05
    margin: float = 2.0
    latency_odds: float = 2.0
    shift_odds: float | None = 4.0
    custom: tuple[CustomMetric, ...] = ()
    error_threshold: float | None = None
    error_increase: float | None = None
    latency_p95_times: float | None = None
    latency_p99_times: float | None = None
    latency_p99_ms: float | None = None
    min_errors: int = 5
    min_requests: int = 1
    probe_failures: int = 1
    check_s: int = 0
    dry_run: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """What a predictor remembers: an answer is fresh for `ttl_s` seconds, all together take `size_mb` of its memory.

    `url` is the address of a Valkey or Redis server that all of an endpoint's processes share, empty for none.
    """

    ttl_s: int
    size_mb: int = 64
    url: str = ""


LARGEST_MB = 500
"""What `max_artifact_mb` of an endpoint can be at most."""


@dataclass(frozen=True, kw_only=True)
class EndpointPolicy:
    """One endpoint as declared. `approval` is `auto` (an upload starts a rollout) or `manual` (a person does).

    With `snapstart`, Lambda makes a snapshot of each revision's loaded model at its publishing, and starts from that.

    `capture` is the share of requests whose payload is written to the log; `allow` names the formats that can run code
    which the endpoint opts in to.
    """

    name: str
    model: str
    runtime: str
    memory_mb: int = 1024
    timeout_s: int = 10
    snapstart: bool = False
    approval: str = "auto"
    health_check_s: int = 300
    max_artifact_mb: int = 200
    capture: float = 0.0
    cache: CachePolicy | None = None
    allow: tuple[str, ...] = ()
    rollout: RolloutPolicy = RolloutPolicy()
    guards: GuardPolicy = GuardPolicy()


@dataclass(frozen=True, kw_only=True)
class SigningPolicy:
    """Whose signatures count: `keys` maps the name of a trusted key to its public PEM; are they `required` of all?"""

    required: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def hints(self) -> Mapping[str, str]:
        """Of each trusted key the hint that its signatures carry: the SHA-256 of its PEM, in hexadecimal."""
        return {name: hashlib.sha256(pem.encode()).hexdigest() for name, pem in self.keys.items()}

    def distrust(self, signed_by: str, hint: str) -> str | None:
        """Say why a signature that held once does not count now; None if it does.

        Args:
            signed_by: the name that its key had, empty if there is no signature.
            hint: that key's; empty where it was not kept, and then the name counts.
        """
        if not signed_by:
            return "no trusted key signed it"
        trusted = self.hints
        if hint in trusted.values() or (not hint and signed_by in trusted):
            return None
        key = f"key {signed_by}" + (f" ({hint[:12]}…)" if hint else "")
        named = ", ".join(f"{name} ({known[:12]}…)" for name, known in trusted.items()) or "none"
        return f"{key}, which signed it, is not trusted any more; trusted: {named}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that is declared."""

    name: str
    endpoints: tuple[EndpointPolicy, ...]
    signing: SigningPolicy = field(default_factory=SigningPolicy)

    def endpoint(self, name: str) -> EndpointPolicy:
        """Return one endpoint's policy. Raises NotFound, naming those that exist."""
        for policy in self.endpoints:
            if policy.name == name:
                return policy
        known = ", ".join(p.name for p in self.endpoints) or "none"
        raise NotFound(f"no endpoint {name!r} is declared; declared: {known}")

    def serving(self, model: str) -> tuple[EndpointPolicy, ...]:
        """Return the endpoints that serve a model."""
        return tuple(p for p in self.endpoints if p.model == model)

    def too_large(self, model: str, size: int) -> str:
        """Say why no version of a model may have an artifact of so many bytes; empty if one may."""
        limit = max((p.max_artifact_mb for p in self.serving(model)), default=EndpointPolicy.max_artifact_mb)
        if size <= limit * 1_000_000:
            return ""
        return (
            f"has {size / 1e6:,.1f} MB, the limit is {limit} MB; "
            "raise max_artifact_mb of the endpoint in perch.toml if the function has the memory for it"
        )


def load_settings(text: str) -> Settings:
    """Read the canonical document. Raises ValueError or TypeError if it is not one."""
    return load(Settings, json.loads(text))
