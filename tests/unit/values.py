"""Values that several tests begin with."""

from datetime import UTC, datetime, timedelta

from perch.domain import moves, queueing
from perch.domain.model import Pointer
from perch.domain.policy import EndpointPolicy, GuardPolicy, RolloutPolicy, Step
from perch.domain.rollout import Candidate, Change, Endpoint, Revision

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CANARY = EndpointPolicy(
    name="digits",
    model="digits",
    runtime="onnx",
    rollout=RolloutPolicy(
        strategy="canary",
        steps=(Step(weight=0.05, hold_s=600, requests=20), Step(weight=0.5, hold_s=1200, requests=50)),
        settle_s=60,
        deadline_s=86_400,
    ),
    guards=GuardPolicy(error_rate=0.05, latency_p99_ms=500),
)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def pointer(version: str = "v2", model: str = "digits") -> Pointer:
    return Pointer(
        model=model,
        version=version,
        key=f"models/{model}/{version}/model.onnx",
        version_id=f"id-{version}",
        sha256="0" * 64,
        size=10,
        format="onnx",
    )


def candidate(version: str = "v2", number: int = 2, cause: str = "upload") -> Candidate:
    return Candidate(pointer=pointer(version), number=number, cause=cause, actor="ada")


def live(version: str = "v1") -> Endpoint:
    """An endpoint that serves `version` from revision 2."""
    stable = Revision(lambda_version="2", fingerprint="code-a", pointer=pointer(version), number=1)
    return Endpoint(name="digits", stable=stable, considered=1)


def after(change: Change) -> Endpoint:
    return change.after


def shifting(endpoint: Endpoint | None = None, policy: EndpointPolicy = CANARY) -> Endpoint:
    """An endpoint with v2 as revision 3 in its first step."""
    state = queueing.enqueue(endpoint or live(), candidate(), now=T0).after
    state = queueing.start(state, policy, Revision(lambda_version="2"), now=T0).after
    revision = Revision(lambda_version="3", fingerprint="code-a", pointer=pointer(), number=2)
    state = moves.published(state, revision, now=T0 + minutes(1)).after
    return moves.enter_step(state, "3 of 3 probes passed", now=T0 + minutes(2)).after
