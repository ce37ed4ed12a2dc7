"""Anything, in any order: uploads, traffic, commands, strangers, faults and deaths; the laws hold after every step.

Hypothesis plays a sequence of rules on the real driver, the real use cases and strict AWS. After each step the laws of
the design are checked from outside: from the alias as Lambda has it and from what is stored. At the end the troubles
stop, traffic is good, and everything must come to rest.

It runs shortly in CI; `PERCH_STATE_MACHINE=<examples>` plays so many longer ones, never the same.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import HealthCheck, note, settings
from hypothesis import Phase as Explore
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perch.app import command
from perch.app.advance import advance
from perch.app.roll_back import abort, emergency, roll_back_by_hand, roll_back_on_alarm
from perch.app.start import start
from perch.domain.agreement import Answer, Replayed, compare
from perch.domain.errors import Conflict, NotFound, NotReady, Refused
from perch.domain.ledger import Entry, broken_at
from perch.domain.names import AlarmName
from perch.domain.policy import EndpointPolicy, GuardPolicy, RolloutPolicy, Settings, Step
from perch.domain.rollout import LEGAL, Phase, Rollout, Routing, desired_routing
from perch.domain.sequential import Share, enough
from perch.domain.tally import Tally
from tests.aws.deployment import FUNCTION, Deployment, answers, deployed
from tests.aws.trouble import OPERATIONS, WAYS, Trouble

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("PERCH_STATE_MACHINE", "0"))
TERMINAL = {phase for phase, after in LEGAL.items() if not after}
ORDINARY = 600  # requests a minute
DEADLINE = 3 * 3600
A_STEP = Step(weight=0.1, hold_s=180, requests=20)
PROVED = Step(weight=0.5, hold_s=240, requests=50, proof=True)


def _policy(*steps: Step, guards: GuardPolicy | None = None, **fields) -> EndpointPolicy:
    policy = RolloutPolicy(strategy="canary", steps=steps, settle_s=60, deadline_s=DEADLINE)
    return EndpointPolicy(
        name="digits", model="digits", runtime="onnx", rollout=replace(policy, **fields),
        guards=guards or GuardPolicy(error_rate=0.05, latency_p99_ms=500),
    )  # fmt: skip


POLICIES = {
    "direct": _policy(strategy="direct"),
    "canary with proof": _policy(A_STEP, PROVED),
    "canary with a gate": _policy(replace(A_STEP, gate="person"), PROVED, at_deadline="hold"),
    "blue-green": _policy(Step(weight=1.0, hold_s=300, proof=True), strategy="blue-green"),
    "shadow first": _policy(Step(weight=0.0, hold_s=120, requests=5), A_STEP),
    "holdback": _policy(replace(PROVED, weight=0.2), Step(weight=0.95, hold_s=600, requests=1, watch=True)),
    "budget": _policy(replace(PROVED, weight=0.05), PROVED, budget=30, ceiling=0.5),
    "supersede": _policy(
        A_STEP, PROVED, Step(weight=1.0, hold_s=900, requests=1, watch=True), when_busy="supersede",
        guards=GuardPolicy(error_rate=0.05, error_threshold=0.2, error_increase=5, latency_p95_times=2.0, check_s=180),
    ),
}  # fmt: skip
TRAFFIC = (
    "good",
    "good",
    "good",
    "candidate fails",
    "candidate is slow",
    "both fail",
    "candidate only",
    "none",
    "no logs",
)
PASSES = (Refused, NotReady, NotFound, Conflict)


class Rollouts(RuleBasedStateMachine):
    """One endpoint and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.uploads = 0
        self.codes = 0
        self.moved_by_stranger = False
        self.told: list[Entry] = []
        self.watermarks: dict[str, Tally] = {}
        self.went_back: set[str] = set()
        self.rested = False  # whether the last step was a tick that nothing disturbed

    @initialize(name=st.sampled_from(sorted(POLICIES)), live=st.sampled_from([True, True, True, False]))
    def deploy(self, name: str, live: bool) -> None:
        """Begin with an endpoint under one of the policies, mostly with a version that serves."""
        policy = POLICIES[name]
        note(f"policy: {name}")
        self.d: Deployment = self.stack.enter_context(deployed(Settings(name="perch", endpoints=(policy,))))
        self.trouble = Trouble()
        self.trouble.watch(self.d.clients)
        if live:
            self._register()
            for _ in range(2):
                self.d.tick()
            self._traffic("good", 2)

    def teardown(self) -> None:
        """Take the troubles away; then everything must come to rest."""
        try:
            if hasattr(self, "d"):
                self._comes_to_rest()
                self.check_the_laws()
        finally:
            self.stack.close()

    # -- what may happen ----------------------------------------------------------------------------------------------

    @rule(minutes=st.integers(1, 8), kind=st.sampled_from(TRAFFIC))
    def live_on(self, minutes: int, kind: str) -> None:
        """Let minutes pass, each with traffic and a tick."""
        for _ in range(minutes):
            self._traffic(kind)
            self._act("tick", {})

    @rule(minutes=st.integers(5, 12))
    def all_is_well(self, minutes: int) -> None:
        """Let a while pass in which users are served well, whatever else is broken."""
        self.live_on(minutes, "good")

    @rule()
    def a_new_version_meets_its_users(self) -> None:
        """Register a good version and give it time to get some traffic."""
        self._register()
        self.live_on(3, "good")

    @rule(minutes=st.sampled_from([1, 3, 10, 60, 600, 1440]), kind=st.sampled_from(TRAFFIC))
    def nobody_ticks(self, minutes: int, kind: str) -> None:
        """Let time pass while the schedule is silent."""
        self._traffic(kind)
        self.d.now += timedelta(minutes=minutes)
        self.rested = False

    @rule(minutes=st.sampled_from([1, -1, -1, -5]))
    def the_clock_jumps(self, minutes: int) -> None:
        """Let clocks disagree by some minutes."""
        self.d.now += timedelta(minutes=minutes, seconds=17)
        self.rested = False

    @rule(minutes=st.sampled_from([1, 2, 5, 60, 1440]))
    def a_tick_comes_late(self, minutes: int) -> None:
        """Run the driver with the time of an event that was held up."""
        self._run(lambda: self._tick(-minutes))

    @rule(
        what=st.sampled_from(["tick", "tick", "alarm", "upload", "emergency", "promote", "abort"]),
        meanwhile=st.sampled_from(
            ["tick", "alarm", "emergency", "promote", "abort", "pause", "stranger", "deployment"]
        ),
        at=st.integers(0, 14),
    )
    def somebody_cuts_in(self, what: str, meanwhile: str, at: int) -> None:
        """Do one thing while another is under way."""
        self.d.now += timedelta(minutes=1)
        self.trouble.cuts_in = (at, lambda: self._inner(meanwhile))
        self._act(what, {})

    @rule(what=st.sampled_from(["tick", "tick", "alarm", "emergency", "promote", "abort"]), after=st.integers(1, 16))
    def it_dies(self, what: str, after: int) -> None:
        """Kill whoever is at work after one of its calls."""
        self.trouble.dies_after = after
        self._act(what, {})

    @rule(
        what=st.sampled_from(["tick", "tick", "alarm", "emergency"]), at=st.integers(0, 14), way=st.sampled_from(WAYS)
    )
    def one_call_fails(self, what: str, at: int, way: str) -> None:
        """Let one call of a run go wrong."""
        self.trouble.fails_at = (at, way)
        self._act(what, {})

    @rule(operation=st.sampled_from(OPERATIONS), way=st.sampled_from(WAYS), calls=st.integers(1, 12))
    def a_service_is_down(self, operation: str, way: str, calls: int) -> None:
        """Let an operation fail for the next calls."""
        self.trouble.failing, self.trouble.failures_left = (operation, way), calls

    @rule()
    def the_service_is_back(self) -> None:
        """End what goes wrong."""
        self.trouble.failing = None

    @rule(bad=st.sampled_from([False, False, False, True]))
    def upload(self, bad: bool) -> None:
        """Register a version; a bad one does not pass its probes."""
        self._register(bad=bad and self.uploads > 0)
        self.rested = False

    @rule()
    def deployment(self) -> None:
        """Deploy other code."""
        self._deploy()
        self.rested = False

    @rule(
        guard=st.sampled_from(
            ["candidate-errors", "candidate-errors", "failures", "probes-stable", "probes-candidate"]
        ),
        version=st.sampled_from(["candidate", "candidate", "2", "9"]),
        age=st.sampled_from([0, 0, 1, 90]),
        times=st.integers(1, 3),
    )
    def an_alarm_goes_off(self, guard: str, version: str, age: int, times: int) -> None:
        """Deliver the event of an alarm: the right one, a stale one, one of another revision, or several."""
        for _ in range(times):
            self._act("alarm", {"guard": guard, "version": version, "age": age})

    @precondition(lambda self: self.d.state.rollout is not None)
    @rule()
    def an_alarm_is_seen_only_by_the_tick(self) -> None:
        """Set an alarm to ALARM without an event."""
        alarms = self.d.world.alarms.of("digits")
        for alarm in alarms[:1]:
            self.d.clients.cloudwatch.set_alarm_state(AlarmName=alarm.name, StateValue="ALARM", StateReason="9 > 5")
        self.rested = False

    @rule(what=st.sampled_from(["pause", "resume", "promote", "promote fully", "abort", "roll back", "emergency"]))
    def a_person_says(self, what: str) -> None:
        """Give a command."""
        self._act(what, {})

    @rule(back=st.integers(1, 4), direct=st.booleans())
    def a_person_asks_for_a_version(self, back: int, direct: bool) -> None:
        """Start a rollout by hand, of a version that failed, waits, serves, or served."""
        self._act("start", {"version": f"v{max(1, self.uploads - back)}", "direct": direct})

    @rule(back=st.integers(1, 4))
    def a_person_goes_back_to_a_version(self, back: int) -> None:
        """Name a version that served before, perhaps."""
        self._act("roll back", {"to": f"v{max(1, self.uploads - back)}"})

    @rule(passed=st.booleans(), step=st.sampled_from([None, None, 0, 7]), late=st.booleans())
    def a_gate_is_answered(self, passed: bool, step: int | None, late: bool) -> None:
        """Answer a gate: the open one, another, or that of a rollout which is over."""
        rollout = self.d.state.rollout
        name = "digits-000001" if late or rollout is None else rollout.id
        at = step if step is not None else rollout.step if rollout else 0
        self._act("answer", {"rollout": name, "step": at, "passed": passed})

    @rule(failed=st.booleans())
    def requests_are_replayed(self, failed: bool) -> None:
        """Compare some answers of the shadow."""
        self._replay(failed=failed)
        self.rested = False

    @rule(other=st.integers(0, 9), weight=st.sampled_from([0.0, 0.3, 1.0]))
    def a_stranger_moves_the_alias(self, other: int, weight: float) -> None:
        """Let somebody else write the alias."""
        self._stranger(other, weight)
        self.rested = False

    @rule()
    def a_stranger_deletes_the_alarms(self) -> None:
        """Let somebody else delete what watches the candidate."""
        self.d.world.alarms.unwatch("digits")
        self.rested = False

    # -- how it happens -----------------------------------------------------------------------------------------------

    def _act(self, what: str, how: dict) -> None:
        self._run(self._deed(what, **how), tick=what == "tick")

    def _run(self, deed: Callable[[], object], *, tick: bool = False) -> None:
        """Do it under the troubles that are on; without any, nothing but a refusal may come of it."""
        before = self.trouble.failing
        with self.trouble.at_work():
            try:
                deed()
            except PASSES as refused:
                note(f"  refused: {refused}")
            except (ClientError, BotoCoreError) as error:
                if not self.trouble.struck and before is None:
                    raise
                note(f"  AWS: {error}")
        self.rested = tick and not self.trouble.struck and before is None
        if self.rested and self.d.state.stable:  # before the first promotion the alias is not yet ours to put back
            self.moved_by_stranger = False

    def _inner(self, what: str) -> None:
        with suppress(*PASSES, ClientError, BotoCoreError):
            self._deed(what)()

    def _deed(self, what: str, **how) -> Callable[[], object]:  # noqa: C901, PLR0911, PLR0912 - a table
        d = self.d
        said = {"reason": "because", "actor": "grace", "now": d.now}
        match what:
            case "tick":
                return self._tick
            case "alarm":
                return lambda: self._alarm(**how)
            case "upload":
                return self._register
            case "stranger":
                return lambda: self._stranger(self.uploads, 0.3)
            case "deployment":
                return self._deploy
            case "pause":
                return lambda: command.pause(d.world, "digits", **said)
            case "resume":
                return lambda: command.resume(d.world, "digits", **said)
            case "promote" | "promote fully":
                return lambda: command.promote(d.world, "digits", full=what != "promote", **said)
            case "answer":
                return lambda: command.answer(d.world, "digits", **how, **said)
            case "abort":
                return lambda: abort(d.world, "digits", **said)
            case "roll back":
                return lambda: roll_back_by_hand(d.world, "digits", **how, **said)
            case "emergency":
                return lambda: emergency(d.world, "digits", **said)
            case "start":
                return lambda: start(d.world, "digits", actor="grace", now=d.now, **how)
        raise AssertionError(what)

    def _tick(self, minutes: float = 1.0) -> None:
        if minutes > 0:
            self.d.now += timedelta(minutes=minutes)
        self.d.ticks += 1
        now = self.d.now + timedelta(minutes=min(0.0, minutes))
        progress = advance(self.d.world, self.d.policy, now=now, owner=f"tick-{self.d.ticks}")
        note(f"  {progress}")

    def _register(self, bad: bool = False) -> None:
        self.uploads += 1
        version = f"v{self.uploads}"
        if bad:
            self.d.predictors.broken[version] = answers(503, "no")
        self.d.registered(version)

    def _deploy(self) -> None:
        self.codes += 1
        self.d.deploy_code(f"code {self.codes % 3}")

    def _alarm(self, guard: str = "candidate-errors", version: str = "candidate", age: int = 0) -> object:
        rollout = self.d.state.rollout
        revision = rollout.revision.lambda_version if rollout and rollout.revision else "3"
        of = None if not guard.startswith("candidate") else revision if version == "candidate" else version
        since = self.d.now - timedelta(minutes=age)
        name = AlarmName("perch", "digits", guard, of)
        return roll_back_on_alarm(self.d.world, name, reason="9 > 5", since=since, now=self.d.now)

    def _stranger(self, other: int, weight: float) -> None:
        found = self.d.clients.lambda_.list_versions_by_function(FunctionName=FUNCTION)["Versions"]
        versions = [v["Version"] for v in found if v["Version"] != "$LATEST"]
        main, extra = versions[-1], versions[other % len(versions)]
        weights = {extra: weight} if extra != main and weight < 1 else {}
        self.d.clients.lambda_.update_alias(
            FunctionName=FUNCTION, Name="live", FunctionVersion=main,
            RoutingConfig={"AdditionalVersionWeights": weights},
        )  # fmt: skip
        self.moved_by_stranger = True

    def _replay(self, *, failed: bool) -> None:
        rollout = self.d.state.rollout
        if rollout is None or rollout.phase is not Phase.SHIFTING:
            return
        good = Answer(status=200, predictions=(1,), latency_ms=1.0)
        theirs = Answer(status=500) if failed else good
        pairs = sum((compare(f"r{i}", good, theirs, tolerance=0.0) for i in range(6)), Replayed())
        before = self.d.world.registry.replayed("digits", rollout.id) or Replayed()
        after = before + pairs
        self.d.world.registry.record_replayed("digits", rollout.id, replace(after, runs=before.runs + 1))

    def _traffic(self, kind: str, minutes: int = 1) -> None:
        """Count what users would have sent to whatever the alias points to."""
        for _ in range(minutes):
            routing = self.d.alias
            shares = {routing.version: 1.0 - routing.weight} | (
                {routing.other: routing.weight} if routing.other else {}
            )
            rollout = self.d.state.rollout
            candidate = rollout.revision.lambda_version if rollout and rollout.revision else ""
            for version, share in shares.items():
                ours = version == candidate
                if kind == "none" or (kind == "candidate only" and not ours):
                    continue
                requests = round(ORDINARY * share)
                fails = kind == "both fail" or (kind == "candidate fails" and ours)
                slow = kind == "candidate is slow" and ours
                failures, ms = requests // 4 if fails else 0, 900.0 if slow else 10.0
                self._count(version, requests, failures=failures, ms=ms, logged=kind != "no logs")
            if minutes > 1:
                self.d.now += timedelta(minutes=1)

    def _count(self, version: str, requests: int, *, failures: int, ms: float, logged: bool) -> None:
        if not requests:
            return
        slow = (ms,) * 9 + (1.3 * ms,)
        self.d.traffic(version, requests=requests, failures=failures, latency_ms=slow, logged=logged)
        ours = {"Endpoint": "digits", "Revision": version}
        for value in (0.0, 1.0, 2.0):
            self.d.metrics.put("Perch", "Prediction", ours, value, at=self.d.now, count=(requests - failures) // 3)

    # -- the laws -----------------------------------------------------------------------------------------------------

    @invariant()
    def check_the_laws(self) -> None:
        """Look at everything from outside."""
        if not hasattr(self, "d"):
            return
        registry, state = self.d.world.registry, self.d.state
        news = registry.ledger("digits", after=len(self.told))
        before = len(self.told)
        self.told += news
        assert broken_at(self.told) is None, "law 6: the ledger is whole"
        assert len(self.told) == state.seq, "law 6: one entry a change"
        rollouts = {r.id: r for r in registry.rollouts("digits", limit=60)}
        for entry in self.told[before:]:
            assert entry.reason.strip(), entry
            self._no_promotion_without_evidence(entry, rollouts)
            self._back_is_back(entry)
        for rollout in rollouts.values():
            assert rollout.phase not in TERMINAL or rollout.reason.strip(), "law 5: an end has its reason"
            self._evidence_adds_up(rollout)
        self._alias_is_valid()
        if self.rested:
            assert state.rollout is None or state.rollout.phase not in (Phase.ROLLING_BACK, Phase.PROMOTING), state
            assert desired_routing(state) in (None, self.d.alias), "law 4: what is decided is done"

    def _alias_is_valid(self) -> None:
        answer = self.d.clients.lambda_.get_alias(FunctionName=FUNCTION, Name="live")
        weights = (answer.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        assert len(weights) <= 1, "law 3: at most two versions"
        assert all(0 <= weight <= 1 for weight in weights.values())
        if self.moved_by_stranger:
            return
        tried = {revision for revision, version in self.d.predictors.asked if version not in self.d.predictors.broken}
        assert {answer["FunctionVersion"], *weights} <= tried | {"1"}, "law 3: only what passed its probes has traffic"

    def _no_promotion_without_evidence(self, entry: Entry, rollouts: dict[str, Rollout]) -> None:
        if entry.kind not in ("StepEntered", "PromotionDecided") or entry.actor != "perch":
            return
        if "has proved itself" in entry.reason:
            return
        earlier = [e for e in self.told if e.rollout == entry.rollout and e.seq < entry.seq]
        step = sum(e.kind == "StepEntered" for e in earlier) - 1
        inputs = entry.inputs
        if step < 0:
            assert inputs["passed"] == inputs["total"] > 0, "law 3: probed before it had traffic"
            return
        rollout = rollouts[entry.rollout or ""]
        left = rollout.policy.steps[step]
        assert inputs["verdict"] == "promote", entry
        if left.kind == "shadow":
            seen = self.d.world.registry.replayed("digits", rollout.id)
            assert seen is not None
            assert seen.pairs >= left.requests, "law 5"
            return
        tally = inputs["tally"]
        assert tally["step"] == step, "law 5: the evidence is of the step that is left"
        assert tally["candidate_step"]["requests"] >= max(1, left.requests), "law 5: no evidence never promotes"
        if left.proof:
            ours, limit = tally["candidate"], rollout.guards.error_rate
            within = enough(Share(limit).log_e_within(ours["failures"], ours["requests"]), rollout.guards.alpha)
            stable_fails = tally["stable"]["failures"] > limit * tally["stable"]["requests"]
            assert within or stable_fails, "law 5: shown to be within its service level"

    def _back_is_back(self, entry: Entry) -> None:
        """Once a roll-back is decided nothing else may happen to a rollout but its end."""
        if entry.rollout in self.went_back:
            assert entry.kind in ("RolloutRolledBack", "AliasCorrected", "EndpointForgotten", "Paused", "Resumed"), (
                entry
            )
        if entry.kind == "RollbackDecided":
            self.went_back.add(entry.rollout or "")

    def _evidence_adds_up(self, rollout: Rollout) -> None:
        known = self.watermarks.get(rollout.id)
        if known and rollout.phase in TERMINAL and rollout.id != self.told[-1].rollout:
            return
        tally = self.d.world.registry.tally("digits", rollout.id)
        if tally is None:
            assert known is None
            return
        assert known is None or tally.until >= known.until, "the watermark never goes back"
        if known == tally:
            return
        self.watermarks[rollout.id] = tally
        minutes = [minute for look in self.d.world.registry.looks("digits", rollout.id) for minute in look.minutes]
        times = [minute.at for minute in minutes]
        assert times == sorted(set(times)), "each minute is counted once"
        moved = [shift.at for shift in rollout.shifts]
        counted = [
            m for m in minutes
            if m.complete and m.at > moved[0] and not any(m.at <= at < m.at + timedelta(minutes=1) for at in moved)
        ]  # fmt: skip
        for arm in ("candidate", "stable"):
            requests = sum(getattr(m, arm).requests for m in counted)
            failures = sum(getattr(m, arm).failures for m in counted)
            assert (requests, failures) == (getattr(tally, arm).requests, getattr(tally, arm).failures), rollout.id

    def _comes_to_rest(self) -> None:
        """No rollout is stuck for ever: without troubles, with good traffic and answered gates, all of them end."""
        self.trouble.failing = None
        self.trouble = Trouble()
        since, last = self.d.now, None
        for _ in range(3000):
            state = self.d.state
            if state.paused:
                command.resume(self.d.world, "digits", reason="on", actor="grace", now=self.d.now)
            if state.rollout is None and not state.queue and not self.d.tick().done:
                break
            rollout = state.rollout
            if rollout and rollout.id != last:
                last, since = rollout.id, self.d.now
            if rollout and rollout.phase is Phase.SHIFTING:
                if rollout.gate == rollout.step > rollout.answered:
                    said = {"reason": "yes", "actor": "grace", "now": self.d.now}
                    command.answer(self.d.world, "digits", rollout.id, rollout.step, passed=True, **said)
                if rollout.current_step.kind == "shadow":
                    self._replay(failed=False)
            assert self.d.now - since < timedelta(seconds=3 * DEADLINE), f"stuck: {rollout}"
            self._traffic("good", 3)
            self.d.tick()
        else:
            raise AssertionError("never at rest")
        assert self.d.alias == (desired_routing(self.d.state) or Routing(version=self.d.alias.version))
        self.rested = True


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=LONG or 10,
    stateful_step_count=60 if LONG else 25,
    deadline=None,
    derandomize=not LONG,
    database=None,
    print_blob=bool(LONG),
    suppress_health_check=list(HealthCheck),
    phases=(Explore.generate,),  # what happened is told step by step; to shrink it takes longer than to read it
)


# -- what it found ----------------------------------------------------------------------------------------------------


def test_an_incident_that_is_over_does_not_ask_a_good_candidate_to_be_better():
    """Stable failed when the rollout began, and then no more: without failures nobody can be shown to have fewer."""
    with deployed(Settings(name="perch", endpoints=(_policy(replace(PROVED, weight=0.2)),))) as d:
        d.live("v1")
        for _ in range(5):
            d.both(600, stable_failures=100)
            d.now += timedelta(minutes=1)
        d.registered("v2")
        d.tick()
        assert d.state.rollout.measures.failing > d.policy.guards.error_rate
        for _ in range(15):
            d.both(600)
            d.tick()

        assert d.state.stable.pointer.version == "v2"
