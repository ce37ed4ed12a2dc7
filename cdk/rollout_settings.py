"""The rollout and guard tables of an endpoint in perch.toml, as frozen, checked values.

A strategy is a way to write down steps. Whatever it is called, what is deployed is a list of them: a shadow (no
traffic), shares of the traffic, a bake (all of it, with the way back kept open), a holdback (a little of it stays).

    direct                                     100 %, once it passed its probes
    shadow                 shadow ─►           a gate, then 100 %
    canary, linear        [shadow ─►] shares ─► [holdback ─► bake ─►] 100 %
    blue-green            [shadow ─►] bake ─►   100 %
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cdk.reading import (
    Reader,
    WrongValueError,
    duration,
    flag,
    fraction,
    number,
    one_of,
    proportion,
    spell,
    table,
    text,
    whole,
    words,
)

MINUTE, HOUR, DAY = 60, 3_600, 86_400
# CloudWatch keeps the minutes of a metric for 15 days, and a step is judged on all of its minutes.
LONGEST_STEP = 14 * DAY
GUARDS = ("errors", "slo", "latency", "shift", "custom", "paired", "split")
THRESHOLDS = ("error_threshold", "error_increase", "latency_p95_times", "latency_p99_times", "latency_p99_ms")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a rollout; see `perch.domain.policy.Step`, which reads it."""

    weight: float
    hold_s: int
    requests: int = 50
    proof: bool = False
    gate: str = ""
    watch: bool = False


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How traffic moves to a new revision. `direct` has no steps; the promotion after the last step is none itself."""

    strategy: str = "canary"
    steps: tuple[Step, ...] = (
        Step(weight=0.05, hold_s=10 * MINUTE),
        Step(weight=0.25, hold_s=10 * MINUTE),
        Step(weight=0.5, hold_s=10 * MINUTE, proof=True),
    )
    settle_s: int = 3 * MINUTE
    deadline_s: int = 7 * DAY
    at_deadline: str = "roll back"
    when_busy: str = "queue"
    agreement: float = 0.95
    tolerance: float = 1e-3
    paired: int = 0
    budget: int | None = None
    ceiling: float = 0.35
    way_back_s: int = DAY


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A count of the user's own, by {Endpoint, Revision}, that is watched like failures."""

    name: str
    namespace: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What is watched; see `perch.domain.policy.GuardPolicy`, which reads it. None is not watched."""

    error_rate: float = 0.05
    alpha: float = 0.05
    margin: float = 2.0
    latency_odds: float = 2.0
    shift_odds: float | None = 4.0
    custom: tuple[Custom, ...] = ()
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


PRESETS: Mapping[str, Guards] = {
    "conservative": Guards(
        error_rate=0.02,
        alpha=0.1,
        margin=1.5,
        latency_odds=1.5,
        shift_odds=3.0,
        latency_p95_times=1.25,
        latency_p99_times=1.5,
        min_requests=100,
    ),
    "balanced": Guards(latency_p95_times=1.5, latency_p99_times=2.0, min_requests=100),
    "aggressive": Guards(
        error_rate=0.1,
        alpha=0.01,
        margin=3.0,
        latency_odds=3.0,
        shift_odds=8.0,
        latency_p95_times=2.0,
        latency_p99_times=3.0,
        min_requests=50,
    ),
}


# -- guards -------------------------------------------------------------------------------------------------------


def guards(reader: Reader, timeout_s: int) -> Guards:
    """Read the guards of an endpoint; a preset gives what is not written."""
    preset = reader.value("preset", one_of(*PRESETS), "")
    usual = PRESETS.get(preset, Guards())
    times, odds = number(1.0, 1_000.0, "of times"), number(1.05, 1_000.0, "of times")
    shift = reader.value("shift_odds", _or_off(odds), usual.shift_odds or 0.0)
    found = Guards(
        error_rate=reader.value("error_rate", fraction, usual.error_rate),
        alpha=reader.value("alpha", fraction, usual.alpha),
        margin=reader.value("margin", odds, usual.margin),
        latency_odds=reader.value("latency_odds", odds, usual.latency_odds),
        shift_odds=shift or None,
        custom=reader.value("custom", lambda value: _custom(value, reader), usual.custom),
        error_threshold=reader.value("error_threshold", fraction, usual.error_threshold),
        error_increase=reader.value("error_increase", times, usual.error_increase),
        latency_p95_times=reader.value("latency_p95_times", times, usual.latency_p95_times),
        latency_p99_times=reader.value("latency_p99_times", times, usual.latency_p99_times),
        latency_p99_ms=reader.value(
            "latency_p99_ms",
            number(1, timeout_s * 1_000, "of milliseconds (up to timeout_s)"),
            usual.latency_p99_ms,
        ),
        min_errors=reader.value("min_errors", whole(1, 1_000_000), usual.min_errors),
        min_requests=reader.value("min_requests", whole(1, 1_000_000_000), usual.min_requests),
        probe_failures=reader.value("probe_failures", whole(1, 1_000), usual.probe_failures),
        check_s=reader.value("check_interval", duration(MINUTE, 3 * HOUR), usual.check_s),
        dry_run=reader.value("dry_run", words(*GUARDS, *THRESHOLDS), usual.dry_run),
    )
    reader.close()
    return found


def _or_off(check: Callable[[object], float]) -> Callable[[object], float]:
    """Take what `check` takes, or `"off"`."""
    return lambda value: 0.0 if value == "off" else check(value)


_WORD = text(r"[A-Za-z][A-Za-z0-9-]{0,39}", "1 to 40 letters, digits and hyphens, beginning with a letter")
_METRIC = text(r"[^:][\x20-\x7e]{0,254}", "1 to 255 ASCII characters, not beginning with a colon")


def _custom(value: object, reader: Reader) -> tuple[Custom, ...]:
    example = 'write it as custom = [{name = "refunds", namespace = "Shop", metric = "Refunds"}]'
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise WrongValueError(example)
    found = []
    for i, item in enumerate(value):
        inner = Reader(item, f"{reader.path('custom')}[{i}]", reader.problems)
        found.append(
            Custom(
                name=inner.required("name", _WORD, "metric"),
                namespace=inner.required("namespace", _METRIC, "Perch"),
                metric=inner.required("metric", _METRIC, "Metric"),
            )
        )
        inner.close()
    if len({one.name for one in found}) < len(found):
        raise WrongValueError("two custom metrics have the same name")
    return tuple(found)


# -- rollouts -----------------------------------------------------------------------------------------------------


def rollout(reader: Reader) -> Rollout:
    """Read the rollout of an endpoint and write it out as steps."""
    usual, known = Rollout(), len(reader.problems)
    strategies = one_of("direct", "canary", "linear", "blue-green", "shadow")
    strategy = reader.value("strategy", strategies, usual.strategy)
    if len(reader.problems) > known:
        # The other keys belong to one strategy or another; without knowing which, nothing true can be said of them.
        return usual
    steps = _steps_of(strategy, reader)
    found = Rollout(
        strategy=strategy,
        steps=steps,
        settle_s=reader.value("settle", duration(MINUTE, HOUR), usual.settle_s),
        deadline_s=reader.value("deadline", duration(HOUR, LONGEST_STEP), usual.deadline_s),
        at_deadline=reader.value("at_deadline", one_of("roll back", "hold"), usual.at_deadline),
        when_busy=reader.value("when_busy", one_of("queue", "supersede"), usual.when_busy),
        agreement=reader.value("agreement", proportion, usual.agreement),
        tolerance=reader.value("tolerance", number(0.0, 1e9), usual.tolerance),
        paired=reader.value("paired", whole(0, 100_000, "of requests"), usual.paired),
        budget=reader.value("budget", whole(1, 1_000_000_000, "of failed requests"), usual.budget),
        ceiling=reader.value("ceiling", fraction, usual.ceiling),
        way_back_s=reader.value("way_back", duration(0, 90 * DAY), usual.way_back_s),
    )
    reader.close()
    if found.budget is not None and not any(0 < step.weight < 1 for step in steps):
        reader.complain("budget", f"{strategy!r} has no share of the traffic to size; a canary or a linear rollout has")
    slow = max((step.hold_s for step in steps), default=0)
    if slow >= found.deadline_s:
        held, limit = spell(slow), spell(found.deadline_s)
        reader.complain("deadline", f"a step is held for {held}, but has to end within {limit}; allow it more time")
    return found


def _steps_of(strategy: str, reader: Reader) -> tuple[Step, ...]:
    if strategy == "direct":
        return ()
    if strategy == "shadow":
        step = replace(_shadow(reader), gate=reader.value("gate", _GATE, "person"))
        return (step,)
    first = (_shadow(reader.inner("shadow")),) if "shadow" in reader.table else ()
    if strategy == "blue-green":
        return (*first, _bake(reader, "30 minutes", watch=False))
    shares = (
        reader.value("steps", lambda value: _steps(value, reader), Rollout().steps)
        if strategy == "canary"
        else _linear(reader)
    )
    last: tuple[Step, ...] = ()
    if "holdback" in reader.table:
        last += (_holdback(reader.inner("holdback")),)
    if "bake" in reader.table:
        last += (_bake(reader, "30 minutes", watch=True),)
    return (*first, *shares, *last)


_REQUESTS = whole(1, 1_000_000_000, "of requests")
_GATE = text(r"[a-z][a-z0-9-]{0,39}", '"person", or the name of a hook in lower-case letters, digits and hyphens')
_HOLD = duration(MINUTE, LONGEST_STEP)


def _shadow(reader: Reader) -> Step:
    """Read a shadow: no traffic, but captured requests are sent to the candidate as well, and compared."""
    step = Step(
        weight=0.0,
        hold_s=reader.value("hold", _HOLD, HOUR),
        requests=reader.value("requests", _REQUESTS, 200),
    )
    if reader.at.endswith(".shadow"):
        step = replace(step, gate=reader.value("gate", _GATE, ""))
        reader.close()
    return step


def _bake(reader: Reader, usual: str, *, watch: bool) -> Step:
    """Read a bake: all the traffic, while stable is kept for the way back."""
    step = Step(weight=1.0, hold_s=reader.value("bake", _HOLD, _HOLD(usual)), watch=watch, proof=not watch)
    if not watch:
        requests, gate = reader.value("requests", _REQUESTS, step.requests), reader.value("gate", _GATE, "")
        step = replace(step, requests=requests, gate=gate)
    return step if not watch else replace(step, requests=1)


def _holdback(reader: Reader) -> Step:
    """Read a reverse holdback: what is left on the old revision, so that the two can go on being compared."""
    kept = reader.value("weight", fraction, 0.02)
    step = Step(weight=round(1 - kept, 6), hold_s=reader.value("hold", _HOLD, DAY), requests=1, watch=True)
    reader.close()
    return step


def _steps(value: object, reader: Reader) -> tuple[Step, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise WrongValueError('write at least one step, as steps = [{weight = "5%", hold = "1 hour", requests = 50}]')
    known = len(reader.problems)
    last = len(value) - 1
    steps = tuple(
        _step(Reader(table(item), f"{reader.path('steps')}[{i}]", reader.problems), last=i == last)
        for i, item in enumerate(value)
    )
    weights = [step.weight for step in steps]
    if len(reader.problems) == known and weights != sorted(set(weights)):
        listed = ", ".join(f"{weight:.4g}" for weight in weights)
        raise WrongValueError(f"weights must grow from step to step, but they are {listed}")
    return steps


def _step(reader: Reader, *, last: bool) -> Step:
    """Read one share of the traffic; the last one asks for proof unless it says otherwise."""
    step = Step(
        weight=reader.required("weight", fraction, 0.5),
        hold_s=reader.required("hold", _HOLD, MINUTE),
        requests=reader.value("requests", _REQUESTS, Step.requests),
        proof=reader.value("proof", flag, last),
        gate=reader.value("gate", _GATE, ""),
    )
    reader.close()
    return step


def _linear(reader: Reader) -> tuple[Step, ...]:
    """Expand equal steps: an increment of 25 % gives 25 %, 50 % and 75 %; the rest is the promotion."""
    increment = reader.value("increment", _increment, 0.1)
    hold_s = reader.value("interval", _HOLD, 10 * MINUTE)
    requests = reader.value("requests", _REQUESTS, Step.requests)
    proof = reader.value("proof", flag, default=True)
    weights = [round(increment * i, 6) for i in range(1, 100)]
    steps = [Step(weight=weight, hold_s=hold_s, requests=requests) for weight in weights if weight < 1]
    return (*steps[:-1], replace(steps[-1], proof=proof))


def _increment(value: object) -> float:
    share = fraction(value)
    if share < 0.01:
        raise WrongValueError(f"{value!r} does not fit; the smallest increment is 1%")
    return share
