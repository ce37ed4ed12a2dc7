"""A policy written out as perch.toml is read back, by the project's own checks, to the same policy."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdk import settings
from perch.domain.evidence import CustomMetric
from perch.domain.policy import EndpointPolicy, GuardPolicy, RolloutPolicy, Step, load_settings
from perch.domain.policy_text import policy_text

SHARES = (Step(weight=0.05, hold_s=600, requests=20), Step(weight=0.5, hold_s=5400, requests=50, proof=True))
SHADOW = Step(weight=0.0, hold_s=3600, requests=200, gate="person")
HOLDBACK = Step(weight=0.98, hold_s=86_400, requests=1, watch=True)
BAKE = Step(weight=1.0, hold_s=1800, requests=1, watch=True)

shares = st.integers(1, 500).map(lambda n: n / 1000)  # the reader rounds to a millionth


def read_back(text: str) -> EndpointPolicy:
    document = tomllib.loads(f'[endpoints.digits]\nruntime = "onnx"\ncapture = "10%"\n{text}')
    return load_settings(settings.parse(document, Path("perch.toml")).as_endpoints_json()).endpoints[0]


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        ("direct", ()),
        ("canary", SHARES),
        ("canary", (SHADOW, *SHARES, HOLDBACK, BAKE)),
        ("canary", (replace(SHARES[0], gate="load-test"), SHARES[1])),
        ("blue-green", (replace(BAKE, watch=False, requests=70, proof=True, gate="person"),)),
        ("shadow", (SHADOW,)),
    ],
)
def test_every_strategy_is_read_back(strategy: str, steps: tuple[Step, ...]) -> None:
    """Each kind of step, alone and together."""
    policy = RolloutPolicy(strategy=strategy, steps=steps)
    found = read_back(policy_text("digits", policy, GuardPolicy()))

    assert found.rollout == policy
    assert found.guards == GuardPolicy()


@given(
    st.builds(
        GuardPolicy,
        error_rate=shares,
        alpha=shares,
        margin=st.floats(1.1, 20.0),
        shift_odds=st.none() | st.floats(1.1, 20.0),
        latency_p99_ms=st.none() | st.integers(1, 9000).map(float),
        error_increase=st.none() | st.floats(1.0, 20.0),
        min_errors=st.integers(1, 100),
        check_s=st.integers(1, 60).map(lambda n: n * 60),
        dry_run=st.just(("errors", "shift")),
        custom=st.just((CustomMetric(name="refunds", namespace="Shop", metric="Refunds"),)),
    ),
    st.integers(2, 200),
    st.none() | st.integers(1, 500),
)
@hypothesis.settings(max_examples=30)
def test_every_guard_is_read_back(guards: GuardPolicy, hours: int, budget: int | None) -> None:
    """And the numbers of the rollout."""
    policy = RolloutPolicy(strategy="canary", steps=SHARES, deadline_s=hours * 3600, budget=budget, paired=hours)
    found = read_back(policy_text("digits", policy, guards))

    assert found.guards == guards
    assert found.rollout == policy
