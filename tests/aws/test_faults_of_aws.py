"""AWS at its worst: every call of a rollout goes wrong once, evidence is late, thin or one-sided, and others meddle.

The first tests fork the process at each call, as `test_killed.py` does: in the child that call goes wrong, in the
parent the story goes on. The others each tell one misfortune, and what must come of it.
"""

import os
import pickle
import re
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from perch.app.command import pause, promote
from perch.app.gather import freeze
from perch.app.roll_back import emergency, roll_back_by_hand, roll_back_on_alarm
from perch.app.start import start
from perch.domain.baseline import ENOUGH
from perch.domain.evidence import Habits, Measures
from perch.domain.names import AlarmName
from perch.domain.policy import EndpointPolicy, RolloutPolicy, Settings, Step
from perch.domain.rollout import Phase, Routing
from tests.aws.assassin import ending
from tests.aws.deployment import FUNCTION, deployed, deployment
from tests.aws.trouble import DENIED, FAILED, LOST, OPERATIONS, SERVICES, THROTTLED, Trouble, refusal
from tests.unit.values import CANARY

__all__ = ["deployment"]
SLOW = "slow"  # so slow that the next tick comes meanwhile
JUDGED = (*SERVICES["lambda_"], *SERVICES["cloudwatch"])
QUICK = Step(weight=0.1, hold_s=60, requests=10)
ONE_STEP = replace(CANARY, rollout=replace(CANARY.rollout, steps=(QUICK,)))


def with_steps(*steps: Step, policy: EndpointPolicy = CANARY, **fields) -> EndpointPolicy:
    return replace(policy, rollout=replace(policy.rollout, steps=steps, **fields))


def shifting_under(policy: EndpointPolicy):
    """A deployment under a policy, with v1 as revision 2 and v2 as revision 3 in its first step."""
    from contextlib import contextmanager

    @contextmanager
    def begin():
        with deployed(Settings(name="perch", endpoints=(policy,))) as d:
            d.live("v1", requests=440)
            d.registered("v2")
            d.tick()
            assert d.state.rollout.phase is Phase.SHIFTING
            yield d

    return begin()


@pytest.fixture
def shifting(deployment):
    """v1 is live, v2 has its first 5 %."""
    deployment.live("v1", requests=440)
    deployment.registered("v2")
    deployment.tick()
    assert deployment.alias.other == "3"
    return deployment


def rollout_of(d):
    """The newest rollout, under way or over."""
    return d.state.rollout or d.world.registry.rollouts("digits")[0]


def tally_of(d):
    return d.world.registry.tally("digits", rollout_of(d).id)


# -- one call goes wrong, each in turn --------------------------------------------------------------------------------


class Fate:
    """Splits the world at each call to Lambda or CloudWatch: in the child it goes wrong, the ways taking turns."""

    def __init__(self, ways, d):
        self.ways, self.d, self.armed, self.calls, self.children = ways, d, False, 0, []
        for service in ("lambda_", "cloudwatch"):
            events = getattr(d.clients, service).meta.events
            events.register("before-call.*.*", lambda model, **_: self.strike(model.name, lost=False))
            events.register("after-call.*.*", lambda model, **_: self.strike(model.name, lost=True))

    def strike(self, call, *, lost):
        if not self.armed:
            return
        way = self.ways[self.calls % len(self.ways)]
        self.calls += lost  # a call is over when it was carried out
        if way is None or lost != (way == LOST):
            return
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            self.armed, self.report = False, writing
            if way != SLOW:
                raise refusal(way, call)
            self.d.tick()
            return
        os.close(writing)
        self.children.append((process, reading, f"{way} {call}"))
        if len(self.children) > 1:  # two cores: let one run while the story goes on
            os.waitpid(self.children[-2][0], 0)

    def endings(self):
        os.waitpid(self.children[-1][0], 0)
        for _, reading, name in self.children:
            with os.fdopen(reading, "rb") as pipe:
                yield name, pickle.loads(pipe.read())


def tell(ways, *, failures):
    """Tell of a candidate with so many failures a minute; return how it ends, and how with each call gone wrong."""
    with deployed(Settings(name="perch", endpoints=(ONE_STEP,))) as d:
        d.live("v1", requests=440)
        d.registered("v2")
        fate, end = Fate(ways, d), None
        try:
            for minute in range(12):
                fate.armed = not hasattr(fate, "report")
                with suppress(ClientError, BotoCoreError):
                    d.tick()
                fate.armed = False
                if d.state.rollout and d.state.rollout.phase is Phase.SHIFTING:
                    d.both(440, failures=failures)
                elif minute and not d.state.rollout:
                    d.tick()  # what was not told yet is told
                    break
            end = ending(d)
        except Exception as error:
            end = repr(error)
            raise
        finally:
            if hasattr(fate, "report"):
                os.write(fate.report, pickle.dumps(end))
                os._exit(0)
        return end, list(fate.endings())


def turns(*ways):
    """In turn, so that every call goes wrong in one way; with PERCH_FAULTS=all, in every way."""
    count = len(ways) if os.environ.get("PERCH_FAULTS") == "all" else 1
    shifted = [ways[n:] + ways[:n] for n in range(count)]
    return pytest.mark.parametrize("ways", shifted, ids=[str(n) for n in range(count)])


@turns(THROTTLED, LOST, FAILED, SLOW)
def test_a_promotion_survives_trouble_at_any_call(ways):
    """A throttled, failing, unheard or slow call delays it; the end is the same, told once."""
    smooth, others = tell(ways, failures=0)

    assert smooth["alias"] == Routing(version="3")
    assert len(others) > 20
    assert [(n, call, end) for n, (call, end) in enumerate(others) if end != smooth] == []


@turns(DENIED, SLOW, FAILED, LOST, THROTTLED)
def test_law_4_a_roll_back_survives_trouble_at_any_call(ways):
    """So does a roll-back; and what is denied for good takes back, or refuses what never had traffic."""
    smooth, others = tell(ways, failures=20)
    ends = [(n, call, end) for n, (call, end) in enumerate(others) if end != smooth]
    refused = [end for _, call, end in ends if call.startswith(DENIED) and end["rollouts"][0][0] is Phase.REFUSED]

    assert smooth["alias"] == Routing(version="2")
    assert smooth["rollouts"][0][0] is Phase.ROLLED_BACK
    assert len(ends) == len(refused), ends
    assert all(end["alias"] == smooth["alias"] for end in refused)


@turns(DENIED, None, None)
def test_what_is_denied_ends_a_promotion_safely(ways):
    """Somebody took a permission away: nothing stays half-way, and the alias points to one revision that is stable."""
    _, others = tell(ways, failures=0)

    for call, end in others:
        assert end["alias"] in (Routing(version="2"), Routing(version="3")), call
        assert end["alias"].version == end["stable"][0], call
        assert end["rollouts"][0][0] in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.REFUSED), call


# -- trouble that stays -----------------------------------------------------------------------------------------------


def test_a_candidate_that_lambda_never_runs_does_not_hold_its_endpoint_for_ever(deployment):
    """Reserved concurrency of zero throttles every probe; after six hours the rollout is refused, in words."""
    deployment.live("v1")
    trouble = Trouble(failing=("Invoke", THROTTLED))
    trouble.watch(deployment.clients)
    deployment.registered("v2")
    with trouble.at_work():
        for hours in (0, 1, 4, 2):
            deployment.tick(60 * hours + 1)

    assert deployment.kinds[-1] == "RolloutRefused"
    assert "trouble that does not pass" in rollout_of(deployment).reason
    assert deployment.alias == Routing(version="2")


def test_law_5_a_step_that_nobody_can_see_into_ends_at_its_deadline():
    """CloudWatch throttles for a day: the candidate does not keep its traffic for ever, unjudged."""
    with shifting_under(with_steps(QUICK, deadline_s=7200)) as d:
        trouble = Trouble(failing=("GetMetricData", THROTTLED))
        trouble.watch(d.clients)
        with trouble.at_work():
            for _ in range(12):
                d.both()
                d.tick(15)
            assert d.alias.other == "3"
            d.tick(15)
            d.tick()

        assert d.alias == Routing(version="2")
        assert "trouble that does not pass" in rollout_of(d).reason


def test_an_emergency_that_cannot_write_the_alias_is_decided_all_the_same(shifting):
    """Lambda fails at the worst moment; the decision is stored, and the next tick carries it out."""
    trouble = Trouble(failing=("UpdateAlias", FAILED), failures_left=20)
    trouble.watch(shifting.clients)
    with trouble.at_work(), pytest.raises(ClientError):
        emergency(shifting.world, "digits", reason="customers complain", actor="grace", now=shifting.now)
    assert shifting.state.rollout.phase is Phase.ROLLING_BACK
    shifting.tick()

    assert shifting.alias == Routing(version="2")
    assert shifting.state.rollout is None


# -- evidence that is late, thin or one-sided -------------------------------------------------------------------------


class LateLog:
    """Half of 300 requests a minute go to either revision; Lambda counts them at once, their log lines come late."""

    def __init__(self, d, *, late, failures, stable_failures=0):
        self.d, self.late = d, timedelta(minutes=late)
        self.failures, self.on_their_way = {"3": failures, "2": stable_failures}, []

    def minute(self):
        for version, failures in self.failures.items():
            self.d.traffic(version, requests=150, logged=False)
            self.on_their_way.append((version, failures, self.d.now))
        for one in [one for one in self.on_their_way if self.d.now - one[2] >= self.late]:
            version, failures, at = one
            self.d.log(version, 150, failures=failures, at=at)
            self.on_their_way.remove(one)
        return self.d.tick()

    def judged(self):
        """The minutes that were looked at."""
        return [
            minute for look in self.d.world.registry.looks("digits", rollout_of(self.d).id) for minute in look.minutes
        ]


HALF = Step(weight=0.5, hold_s=600, requests=50, proof=True)
USUAL_SETTLE = RolloutPolicy().settle_s


@pytest.mark.parametrize("late", [3, 5, 9])
def test_failures_whose_log_lines_come_late_are_all_counted(late):
    """Whether they come within the settling time or after it: a minute waits for them, and is counted once."""
    with shifting_under(with_steps(replace(HALF, hold_s=3600), settle_s=USUAL_SETTLE)) as d:
        log = LateLog(d, late=late, failures=2, stable_failures=3)
        began = d.now
        for _ in range(25):
            log.minute()
            newest = max((minute.at for minute in log.judged()), default=began)
            assert newest <= max(began, d.now - timedelta(minutes=late))
        times = [minute.at for minute in log.judged()]
        tally = tally_of(d)

        assert len(times) == len(set(times)) == 25 - max(late, USUAL_SETTLE // 60)
        assert all((m.candidate.requests, m.candidate.failures) == (150, 2) for m in log.judged())
        assert all((m.stable.requests, m.stable.failures) == (150, 3) for m in log.judged())
        judged = len(times) - 1  # the first is the one in which it got its traffic
        assert (tally.candidate.failures, tally.stable.failures) == (2 * judged, 3 * judged)
        assert tally.dropped == 0


@pytest.mark.parametrize("late", [3, 5, 9])
def test_a_candidate_whose_failures_are_logged_late_is_taken_back_for_them(late):
    """Two requests in five fail; it is not promoted on minutes of which nobody knew that yet."""
    with shifting_under(with_steps(HALF, settle_s=USUAL_SETTLE)) as d:
        log = LateLog(d, late=late, failures=60)
        while d.state.rollout:
            log.minute()
        decided = next(e for e in d.world.registry.ledger("digits") if e.kind == "RollbackDecided")

        assert d.alias == Routing(version="2")
        assert decided.actor == "judge"
        assert "60 of 150 candidate requests failed" in decided.reason


def test_law_5_a_candidate_whose_log_lines_never_come_is_not_promoted_and_it_is_said_why():
    """Lambda counts requests and no crashes; whether they were answered nobody knows."""
    with shifting_under(with_steps(HALF, settle_s=USUAL_SETTLE, deadline_s=7200)) as d:
        log = LateLog(d, late=10_000, failures=0)
        said = [str(log.minute().waiting) for _ in range(60)]
        while d.state.rollout:
            log.minute()

        assert rollout_of(d).phase is Phase.ROLLED_BACK
        assert re.search(
            r"inconclusive: .* has 0; [0-9]+ minutes do not count, since log lines of theirs never came",
            rollout_of(d).reason,
        )
        assert "log lines of theirs never came" in said[-1]
        assert tally_of(d).candidate.requests == 0


def test_law_5_without_any_traffic_a_rollout_ends_inconclusive_and_says_what_it_lacked():
    """Nobody came until the deadline."""
    with shifting_under(with_steps(QUICK, deadline_s=3600)) as d:
        for _ in range(8):
            d.tick(10)
        found = rollout_of(d)

        assert d.alias == Routing(version="2")
        assert found.phase is Phase.ROLLED_BACK
        assert found.reason == (
            "inconclusive: not decided within its deadline of 1 hours: needs 10 requests on the candidate, has 0; "
            "0 of 0 candidate requests failed against 0 of 0 on stable"
        )


def test_traffic_that_only_stable_gets_shows_nothing_of_the_candidate():
    """However much it is, the candidate is not promoted by it."""
    with shifting_under(with_steps(QUICK, deadline_s=1800)) as d:
        for _ in range(5):
            d.traffic("2", requests=1000)
            progress = d.tick(5)
        assert "needs 10 requests on the candidate, has 0" in progress.waiting or "held" in progress.waiting
        for _ in range(4):
            d.tick(10)

        assert rollout_of(d).phase is Phase.ROLLED_BACK
        assert rollout_of(d).reason.startswith("inconclusive")


def test_traffic_that_only_the_candidate_gets_is_judged_by_its_service_level():
    """There is nothing to compare with, but what fails too much fails too much."""
    with shifting_under(with_steps(replace(QUICK, hold_s=1800))) as d:
        for _ in range(4):
            d.traffic("3", requests=200, failures=60)
            d.tick()
        d.tick()

        assert d.alias == Routing(version="2")
        assert re.search(r"60 of 200 candidate requests failed.*, where 5\.00% may", rollout_of(d).reason)


def test_what_is_usual_may_become_known_only_while_the_candidate_has_traffic(deployment):
    """Minutes that were counted by fewer limits and minutes that are counted by more do not get in each other's way."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    assert not deployment.state.rollout.measures.usual
    for _ in range(8):
        deployment.both()
        for revision in ("2", "3"):
            ours = {"Endpoint": "digits", "Revision": revision}
            deployment.metrics.put("Perch", "Prediction", ours, 1.0, at=deployment.now, count=50)
        deployment.tick()

    assert deployment.kinds.count("BaselineFrozen") == 2
    assert deployment.state.rollout.measures.usual
    assert deployment.state.rollout.phase is Phase.SHIFTING
    assert len(tally_of(deployment).candidate.slower) == 4


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_a_day_promotes_nothing():
    """The hold is over at once, but nothing was seen; and what comes then is judged as ever."""
    with shifting_under(with_steps(QUICK, deadline_s=604_800)) as d:
        d.tick(24 * 60)
        assert d.state.rollout.step == 0
        assert "needs 10 requests" in d.tick().waiting
        d.both(1000, failures=50)
        d.tick(2)
        for _ in range(8):  # a look reads three hours
            d.tick()

        assert d.alias == Routing(version="2")


def test_a_tick_that_comes_late_neither_shortens_a_hold_nor_dates_a_step_back(shifting):
    """Its event was held up for ten minutes; what was counted meanwhile was counted before."""
    d = shifting
    for _ in range(14):
        d.both()
        d.tick()
        if d.state.rollout.step == 1:
            break
    entered = d.state.rollout.phase_at
    d.now -= timedelta(minutes=10)
    d.tick()
    d.now += timedelta(minutes=10)
    promote(d.world, "digits", full=True, reason="enough", actor="grace", now=d.now)
    assert [shift.at for shift in rollout_of(d).shifts] == sorted(shift.at for shift in rollout_of(d).shifts)
    assert entered > d.state.rollout.started_at


def test_a_step_that_a_late_tick_enters_begins_when_the_last_minute_was_counted():
    """Nine ticks had looked; the tenth is told with the time of the first, and only it has all the requests."""
    with shifting_under(with_steps(replace(QUICK, hold_s=120), replace(QUICK, weight=0.5))) as d:
        pause(d.world, "digits", reason="wait", actor="grace", now=d.now)
        for _ in range(9):
            d.both(440)
            d.tick()
        from perch.app.command import resume

        resume(d.world, "digits", reason="go", actor="grace", now=d.now)
        counted = tally_of(d).until
        d.now -= timedelta(minutes=5)
        d.tick()

        assert d.state.rollout.step == 1
        assert d.state.rollout.phase_at >= counted
        assert d.state.rollout.shifts[-1].at >= counted


# -- others who meddle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "by_hand", [Routing(version="2", other="3", weight=0.9), Routing(version="3"), Routing(version="1")], ids=str
)
def test_an_alias_that_is_changed_by_hand_is_put_back_and_the_minute_left_out(shifting, by_hand):
    """Whatever was counted while it was put back is no evidence; the split is followed anew from then on."""
    d = shifting
    d.both(100)
    d.tick()
    d.both(100)  # the first whole minute at 5 %
    d.world.functions.route(FUNCTION, by_hand)
    d.tick()
    put_back = d.now.replace(second=0, microsecond=0)
    d.now += timedelta(seconds=30)
    d.both(1000)  # in the minute in which it was put back
    d.now += timedelta(seconds=30)
    for _ in range(3):
        d.both(100)
        d.tick()
    d.now += timedelta(minutes=1)
    d.tick()

    assert d.kinds.count("AliasCorrected") == 1
    assert d.alias == Routing(version="2", other="3", weight=0.05)
    tally, shifts = tally_of(d), d.state.rollout.shifts
    assert tally.moved_at == shifts[-1].at == put_back
    # Of the five minutes with 100 requests, the one in which it got its first traffic is left out as well.
    assert (tally.candidate.requests, tally.stable.requests) == (4 * 5, 4 * 95)


def test_a_stack_that_is_deployed_during_a_rollout_waits_for_its_turn(shifting):
    """The candidate is a published revision, which no deployment touches; the new code is a candidate after it."""
    d = shifting
    d.deploy_code("second")
    d.clients.lambda_.update_function_configuration(
        FunctionName=FUNCTION, Environment={"Variables": {"PERCH_ENDPOINT": "digits"}}
    )
    d.both()
    d.tick()
    assert d.alias == Routing(version="2", other="3", weight=0.05)
    for _ in range(40):
        d.both()
        d.tick()
        if d.state.rollout is None or d.state.rollout.candidate.cause == "code":
            break
    d.tick()

    assert d.state.stable.pointer.version == "v2"
    assert d.state.rollout.candidate.cause == "code"
    carried = d.world.functions.configuration(FUNCTION, d.state.rollout.revision.lambda_version)
    assert carried.pointer.version == "v2"


def test_a_stack_that_is_deployed_while_a_revision_is_published_is_what_is_published(deployment):
    """Publishing shows Lambda what it read; what was deployed in between is read again, and carries the model."""
    d = deployment
    d.live("v1")
    trouble = Trouble()
    trouble.watch(d.clients)
    d.registered("v2")
    publishing = []

    def before_publishing(**_):
        if not publishing:
            publishing.append(True)
            d.deploy_code("second")

    d.clients.lambda_.meta.events.register("before-call.lambda.PublishVersion", before_publishing)
    d.tick()
    revision = d.state.rollout.revision
    found = d.world.functions.configuration(FUNCTION, revision.lambda_version)

    assert publishing
    assert found.pointer.version == "v2"
    assert found.code_sha256 == d.world.functions.configuration(FUNCTION).code_sha256
    assert revision.fingerprint != d.state.stable.fingerprint


def test_a_way_back_does_not_wait_behind_what_is_new(deployment):
    """A paused endpoint holds an upload; a person goes back, now, and not when that has been tried."""
    d = deployment
    d.live("v1")
    d.registered("v2")
    d.tick()
    promote(d.world, "digits", full=True, reason="trust me", actor="grace", now=d.now)
    d.settle()
    assert d.state.stable.pointer.version == "v2"
    pause(d.world, "digits", reason="complaints", actor="grace", now=d.now)
    d.registered("v3")
    d.settle()
    roll_back_by_hand(d.world, "digits", reason="complaints", actor="grace", now=d.now)
    d.settle()

    assert d.state.stable.pointer.version == "v1"
    assert [c.pointer.version for c in d.state.queue] == ["v3"]


def test_a_function_that_is_made_anew_does_not_end_a_pause(deployment):
    """A person said to hold still; only a person says otherwise."""
    d = deployment
    d.live("v1")
    pause(d.world, "digits", reason="audit", actor="grace", now=d.now)
    d.world.functions.route(FUNCTION, Routing(version="1"))
    d.clients.lambda_.delete_function(FunctionName=FUNCTION, Qualifier="2")
    d.tick()

    assert "EndpointForgotten" in d.kinds
    assert d.state.paused
    assert d.state.stable is None


def test_an_alarm_from_an_earlier_rollout_of_the_same_revision_is_history(shifting):
    """A version that is tried again is the same revision; last time's alarm says nothing of this time."""
    d = shifting
    name, since = AlarmName("perch", "digits", "candidate-errors", "3"), d.now
    roll_back_on_alarm(d.world, name, reason="9 > 5", since=since, now=d.now)
    d.settle()
    d.now += timedelta(hours=1)
    start(d.world, "digits", "v2", actor="grace", now=d.now)
    d.tick()
    assert d.alias.other == "3"

    outcome = roll_back_on_alarm(d.world, name, reason="9 > 5", since=since, now=d.now)
    assert "before" in outcome.reason
    assert d.alias.other == "3"


def test_a_dry_run_of_the_guard_on_errors_is_silent_on_every_road():
    """No alarm is made of it, none is missed at later ticks, and the judge only reports it."""
    policy = replace(CANARY, guards=replace(CANARY.guards, dry_run=("errors", "slo", "threshold")))
    with shifting_under(policy) as d:
        trouble = Trouble()
        trouble.watch(d.clients)
        with trouble.at_work():
            for _ in range(4):
                d.both(1000, failures=40)
                d.tick()

        assert d.alias == Routing(version="2", other="3", weight=0.05)
        assert tally_of(d).candidate.failures >= 80
        assert d.world.alarms.of("digits") == ()
        assert "PutMetricAlarm" not in trouble.calls


def test_an_alarm_of_the_endpoint_while_a_direct_rollout_is_promoted_is_taken_calmly(deployment):
    """It was prepared for ten minutes and has no steps; the alarm speaks of what served before."""
    d = deployment
    d.live("v1")
    trouble = Trouble(failing=("Invoke", THROTTLED))
    trouble.watch(d.clients)
    d.registered("v2")
    d.policy = with_steps(strategy="direct")
    with trouble.at_work():
        for _ in range(10):
            d.tick()
    trouble.failing = ("UpdateAlias", THROTTLED)
    with trouble.at_work():
        d.tick()
    assert d.state.rollout.phase is Phase.PROMOTING

    name = AlarmName("perch", "digits", "failures")
    outcome = roll_back_on_alarm(d.world, name, reason="9 > 5", since=d.now, now=d.now)
    assert "the judge compares them" in outcome.reason


# -- drivers that die, or meet ----------------------------------------------------------------------------------------


def test_a_look_that_is_stored_and_not_acted_on_is_not_counted_again(shifting):
    """The driver dies between the tally and the decision; the next one decides the same, on the same counts."""
    d = shifting
    trouble = Trouble()
    trouble.watch(d.clients)
    d.tick()
    d.both(1000, failures=30, stable_failures=1)
    d.now += timedelta(minutes=1)
    trouble.dies_after = 8  # alias, $LATEST, state, version, tally, metrics, alarms, and the look
    with trouble.at_work():
        d.tick()
    assert trouble.calls[-1] == "TransactWriteItems"
    assert tally_of(d).candidate.failures == 30
    assert d.state.rollout.phase is Phase.SHIFTING
    d.tick()
    d.tick()

    decided = next(e for e in d.world.registry.ledger("digits") if e.kind == "RollbackDecided")
    assert "30 of 50 candidate requests failed" in decided.reason
    assert d.alias == Routing(version="2")
    looks = list(d.world.registry.looks("digits", rollout_of(d).id))
    assert sum(minute.candidate.failures for look in looks for minute in look.minutes) == 30


def test_two_drivers_that_count_the_same_minutes_count_them_once(shifting):
    """The second stores its tally first; the first finds that out and begins again."""
    d = shifting
    trouble = Trouble()
    trouble.watch(d.clients)
    for _ in range(3):
        d.both(1000)
        d.tick()
    d.both(1000)
    before = tally_of(d).candidate.requests
    trouble.cuts_in = (6, lambda: d.tick(0))  # before the look is stored
    with trouble.at_work():
        d.tick(2)

    assert trouble.struck
    assert tally_of(d).candidate.requests == before + 2 * 50
    minutes = [m.at for look in d.world.registry.looks("digits", rollout_of(d).id) for m in look.minutes]
    assert minutes == sorted(set(minutes))


# -- what a tick costs ------------------------------------------------------------------------------------------------


def calls_of_a_tick(d, trouble):
    d.both()
    with trouble.at_work():
        d.tick()
    return sorted(trouble.calls)


WATCHING = [
    "DescribeAlarms", "GetAlias", "GetFunctionConfiguration", "GetItem", "GetItem", "GetMetricData",
    "TransactGetItems", "TransactWriteItems",
]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 50])
def test_watching_costs_the_same_after_an_hour_and_after_a_week_in_a_rollout_of_any_length(steps):
    """Eight: alias, $LATEST, state, the candidate's version, tally, metrics, alarms, and one that stores the look."""
    week = [Step(weight=0.01 * (n + 1), hold_s=691_200, requests=10) for n in range(steps)]
    with shifting_under(with_steps(*week, deadline_s=700_000)) as d:
        for _ in range(2):
            for revision in ("2", "3"):  # what is usual is known, so it is not asked for any more
                ours = {"Endpoint": "digits", "Revision": revision}
                d.metrics.put("Perch", "Prediction", ours, 1.0, at=d.now, count=500)
            d.both()
            d.tick()
        trouble = Trouble()
        trouble.watch(d.clients)
        d.tick(2)
        d.tick()
        assert d.state.rollout.measures.usual
        early = calls_of_a_tick(d, trouble)
        d.tick(60)
        hour = calls_of_a_tick(d, trouble)
        for _ in range(6):
            d.tick(24 * 60)
        week_old = calls_of_a_tick(d, trouble)

        assert early == hour == week_old == WATCHING


def test_what_is_usual_is_asked_for_once_a_tick_until_there_was_enough_traffic():
    """What stable fails just now is not asked for again, since it would change nothing."""
    with shifting_under(ONE_STEP) as d:
        asked = []
        metrics = SimpleNamespace(habits=lambda *_, **__: asked.append(1) or Habits(requests=ENOUGH - 1, p50_ms=1.0))
        rollout = replace(d.state.rollout, measures=Measures())

        assert freeze(replace(d.world, metrics=metrics), d.state, rollout, until=d.now, now=d.now) is None
        assert asked == [1]


def test_every_phase_costs_a_constant_number_of_calls(deployment):
    """Whatever lies behind it: how many rollouts there were, and how many minutes were counted."""
    found = []
    trouble = Trouble()
    trouble.watch(deployment.clients)
    d = deployment
    d.live("v1")
    for n in range(2, 6):
        d.registered(f"v{n}")
        with trouble.at_work():
            d.tick()
        begun = len(trouble.calls)
        with trouble.at_work():
            promote(d.world, "digits", full=True, reason="next", actor="grace", now=d.now)
        said = len(trouble.calls)
        with trouble.at_work():
            d.tick()
        ended = len(trouble.calls)
        with trouble.at_work():
            d.tick()
        found.append((begun, said, ended, len(trouble.calls)))

    assert len(set(found)) == 1
    assert found[0][-1] == 3  # at rest


def test_every_operation_that_the_driver_uses_can_be_made_to_fail():
    """The list that faults are drawn from is what a rollout calls."""
    with deployed(
        Settings(name="perch", endpoints=(replace(ONE_STEP, rollout=replace(ONE_STEP.rollout, strategy="blue-green")),))
    ) as d:
        trouble = Trouble()
        trouble.watch(d.clients)
        d.registered("v1")
        d.settle()
        d.registered("v2")
        used = set()
        for _ in range(12):
            with trouble.at_work():
                d.tick()
            used |= set(trouble.calls)
            d.both(440)

    assert used <= set(OPERATIONS) | {"CreateAlias"}
    assert set(OPERATIONS) - used <= {"CreateAlias"}
