"""Experiments against strict AWS: how they reach a revision, what they count, who is braked, and how they end."""

import itertools
import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from perch.app.change_experiment import end_experiment, ramp_experiment, standing, start_experiment
from perch.app.check_health import check_health
from perch.app.command import pause, resume
from perch.app.record_rewards import Reward, record_rewards
from perch.app.roll_back import roll_back_by_hand
from perch.aws.experiments import SHARDS
from perch.domain import brake
from perch.domain import experiment_moves as moves
from perch.domain.codec import dump
from perch.domain.errors import Conflict, Invalid, NotFound, NotReady, Refused
from perch.domain.experiment import Split
from perch.domain.ledger import broken_at
from perch.domain.policy import RolloutPolicy, Settings
from perch.domain.rollout import Routing
from perch.domain.significance import BETS, Tally, tally_of
from tests.aws.deployment import FUNCTION, answers, deployed
from tests.unit.values import CANARY

DIRECT = replace(CANARY, rollout=RolloutPolicy(strategy="direct", settle_s=60))


@pytest.fixture(autouse=True)
def _region(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def d():
    """v1 is live on a direct endpoint; v2 and v3 are registered."""
    with deployed(Settings(name="perch", endpoints=(DIRECT,))) as fresh:
        yield begun(fresh)


@pytest.fixture
def canary():
    """The same, on an endpoint whose rollouts take two steps."""
    with deployed() as fresh:
        yield begun(fresh)


def begun(d):
    for version in ("v2", "v3"):
        d.registered(version)
    d.live("v1")
    return d


def start(d, shares=None, *, versions=None, **fields):
    """Start an experiment: v1 against v2, and v3 if there are two shares."""
    shares = shares or {"challenger": 0.1}
    versions = versions or dict(zip(["champion", *shares], ["v1", "v2", "v3"], strict=False))
    said = start_experiment(d.world, "digits", versions, shares, reason="why not", actor="ada", now=d.now, **fields)
    d.tick()
    return said


def through(d):
    """Let a rollout take its steps, with traffic in which nothing fails."""
    for _ in range(80):
        if d.state.rollout is None:
            return
        d.both()
        d.now += timedelta(minutes=1)
        d.tick()
    raise AssertionError(d.world.registry.ledger("digits")[-1])


def served(d):
    """The split that the stable revision's environment holds, as its predictor reads it."""
    text = environment(d).get("PERCH_EXPERIMENT")
    return Split.from_json(text) if text else None


def environment(d):
    return d.world.functions.configuration(FUNCTION, d.state.stable.lambda_version).environment


def count(d, variant, *, requests, failures=0):
    """Count requests of a variant in the minute that is now."""
    dimensions = {"Endpoint": "digits", "Variant": f"{d.state.experiment.id}/{variant}"}
    d.metrics.put("Perch", "Requests", dimensions, float(requests), at=d.now)
    d.metrics.put("Perch", "Failures", dimensions, float(failures), at=d.now)


def reward(d, *users, value=1.0, shard=0):
    rewards = [Reward(user=user, reward=value) for user in users]
    return record_rewards(d.world.registry, d.world.experiments, "digits", rewards, shard=shard, now=d.now)


def users_of(d, variant, number):
    """So many users of a variant."""
    split = served(d)
    found = (user for i in itertools.count() if split.variant_of(user := f"u{i}") == variant)
    return list(itertools.islice(found, number))


# -- how it begins ----------------------------------------------------------------------------------------------------


def test_an_experiment_is_a_revision_with_all_its_models_in_it(d):
    """The champion in the pointer, the rest in PERCH_EXPERIMENT; every variant was probed before anybody saw it."""
    assert "champion v1 90.00%, challenger v2 10.00%; why not" in start(d)

    assert d.alias == Routing(version="3")
    assert d.predictors.asked == [("2", "v1"), ("3", "v1"), ("3", "v2")]
    assert json.loads(environment(d)["PERCH_POINTER"])["version"] == "v1"
    assert served(d) == d.state.experiment.split
    assert d.kinds[-6:] == [
        "ExperimentStarted", "RolloutQueued", "RolloutStarted", "RevisionPublished", "PromotionDecided",
        "RolloutPromoted",
    ]  # fmt: skip
    assert broken_at(d.world.registry.ledger("digits")) is None


def test_a_running_experiment_moves_nothing_by_itself(d):
    """Tick after tick there is one revision, and the driver says what runs."""
    start(d)
    waits = [d.tick() for _ in range(3)]

    assert [w.done for w in waits] == [(), (), ()]
    assert "runs: champion v1 90.00%" in waits[0].waiting


def test_the_first_revision_takes_the_endpoints_own_steps_and_a_ramp_goes_direct(canary):
    """New models meet users step by step; other shares of the same models are probed, and that is all."""
    d = canary
    start(d)
    assert d.alias == Routing(version="2", other="3", weight=0.05)
    with pytest.raises(Refused, match="being rolled out; rewards count once it serves all"):
        reward(d, "ada")
    through(d)
    assert d.alias == Routing(version="3")

    asked = len(d.predictors.asked)
    ramp_experiment(d.world, "digits", {"challenger": 0.4}, reason="good so far", actor="ada", now=d.now)
    d.tick()
    assert d.alias == Routing(version="4")
    assert served(d).share("challenger") == 0.4
    assert d.predictors.asked[asked:] == [("4", "v1"), ("4", "v2")]
    assert d.kinds[-6] == "SharesChanged"


def test_a_ramp_keeps_those_who_met_a_challenger(d):
    """Through two published revisions."""
    start(d)
    before = served(d)
    ramp_experiment(d.world, "digits", {"challenger": 0.25}, reason="more", actor="ada", now=d.now)
    d.tick()
    users = [f"user-{i}" for i in range(500)]

    assert all(served(d).variant_of(user) == "challenger" for user in users if before.variant_of(user) == "challenger")


def test_a_variant_that_fails_its_probe_ends_the_experiment_and_nobody_saw_it(d):
    """The reason names the variant; the champion goes on, and nothing is tried again."""
    d.predictors.broken["v2"] = answers(503, "sha256 of the artifact does not match")
    start(d)
    last = d.world.registry.ledger("digits")[-1]

    assert d.alias == Routing(version="2")
    assert d.state.experiment is None
    assert last.kind == "ExperimentEnded"
    assert "variant challenger: answered 503: sha256" in last.reason
    assert d.tick().done == ()


def test_a_first_revision_that_fails_users_is_taken_back_and_ends_the_experiment(canary):
    """The judge compares revisions, as in any rollout."""
    d = canary
    start(d)
    for _ in range(6):
        d.both(failures=25)
        d.tick()

    assert d.alias == Routing(version="2")
    assert d.state.experiment is None
    assert "its revision did not pass (rolled back)" in d.world.registry.ledger("digits")[-1].reason


@pytest.mark.parametrize(
    ("versions", "shares", "fields", "error", "why"),
    [
        ({"champion": "v2", "challenger": "v1"}, {"challenger": 0.1}, {}, Refused, "the champion must be that"),
        ({"champion": "v1", "challenger": "v9"}, {"challenger": 0.1}, {}, NotFound, "no registered version 'v9'"),
        ({"champion": "v1", "challenger": "v2"}, {"challenger": 1.0}, {}, Refused, "leave nothing for champion"),
        ({"champion": "v1", "challenger": "v2"}, {}, {}, Invalid, "each challenger a share"),
        ({"champion": "v1", "challenger": "v2"}, {"challenger": 0.1}, {"alpha": 1.0}, Invalid, "alpha"),
        ({"champion": "v1", "challenger": "v2"}, {"challenger": 0.1}, {"floor": 0.6}, Invalid, "floor"),
        ({"champion": "v1", "challenger": "v2"}, {"challenger": 0.1}, {"bandit_every_s": 60}, Invalid, "ten minutes"),
        ({"champion": "v1", "challenger": "big"}, {"challenger": 0.1}, {}, Refused, "take 1,260 MB"),
        ({"champion": "v1", "challenger": "wide"}, {"challenger": 0.1}, {}, Refused, "number of features"),
    ],
)  # fmt: skip
def test_an_experiment_that_cannot_be_is_refused_in_words(versions, shares, fields, error, why):
    """Before anything is published."""
    with deployed(Settings(name="perch", endpoints=(DIRECT,))) as d:
        d.registered("v2", signature={"features": 4})
        d.registered("wide", signature={"features": 5})
        small = d.registered("big").pointer
        _becomes(d, "big", replace(small, size=800_000_000))
        d.registered("v1", signature={"features": 4})
        d.settle()
        with pytest.raises(error, match=why):
            start_experiment(d.world, "digits", versions, shares, reason="x", actor="ada", now=d.now, **fields)
        assert d.state.experiment is None


def _becomes(d, version, pointer):
    """Write another pointer into a registered version, as no use case could (law 1)."""
    key = {"pk": {"S": "MODEL#digits"}, "sk": {"S": f"VERSION#{version}"}}
    item = d.clients.dynamodb.get_item(TableName="registry", Key=key)["Item"]
    document = json.loads(item["document"]["S"]) | {"pointer": dump(pointer)}
    d.clients.dynamodb.put_item(TableName="registry", Item=item | {"document": {"S": json.dumps(document)}})


def test_there_is_one_experiment_an_endpoint_at_a_time(d):
    """And none while a rollout waits."""
    start(d)
    with pytest.raises(Refused, match="end it first"):
        start(d)


# -- what comes meanwhile ---------------------------------------------------------------------------------------------


def test_other_versions_wait_until_the_experiment_is_over(d):
    """They would replace its champion; the ledger says what they wait for."""
    start(d)
    d.registered("v4")
    d.tick()
    assert d.world.registry.ledger("digits")[-1].reason.startswith("digits v4 waits for experiment digits-x")
    assert d.tick().done == ()

    end_experiment(d.world, "digits", winner=None, reason="enough", actor="ada", now=d.now)
    d.settle()
    assert d.state.stable.pointer.version == "v4"
    assert served(d) is None


def test_new_code_is_rolled_out_with_the_experiment_in_it(d):
    """A deployment does not end an experiment."""
    start(d)
    before = served(d)
    d.deploy_code("second")
    d.settle()

    assert d.world.registry.rollouts("digits")[0].candidate.cause == "code"
    assert served(d) == before
    assert d.state.experiment


def test_going_back_by_hand_ends_the_experiment(d):
    """Whoever goes back wants what was there before, and it stays."""
    start(d)
    ramp_experiment(d.world, "digits", {"challenger": 0.3}, reason="more", actor="ada", now=d.now)
    d.tick()
    roll_back_by_hand(d.world, "digits", reason="odd answers", actor="ada", now=d.now)
    d.settle()

    assert d.alias == Routing(version="2")
    assert d.state.experiment is None
    assert "ExperimentEnded" in d.kinds


def test_health_checks_probe_every_variant(d):
    """One of them that no longer answers is a failed check."""
    start(d)
    asked = len(d.predictors.asked)
    [healthy] = check_health(d.world, d.policy, now=d.now)
    assert d.predictors.asked[asked:] == [("3", "v1"), ("3", "v2")]
    assert healthy.healthy

    d.predictors.broken["v2"] = answers(500, "out of memory")
    [sick] = check_health(d.world, d.policy, now=d.now)
    assert "variant challenger: answered 500" in sick.report.failure


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_each_user_counts_once_however_often_and_wherever_it_is_sent(d):
    """The first reward wins, in a batch, in a second batch, and through another counter."""
    start(d)
    assert (reward(d, "ada", "bob", "ada").new, reward(d, "bob", "eve", shard=5).new) == (2, 1)
    assert reward(d, "ada", value=0.5, shard=3) == replace(reward(d, "ada"), new=0, known=1)
    found = standing(d.world, d.state)

    assert sum(found.tally.users) == 3
    assert sum(found.tally.rewards) == 3.0


def test_sums_in_the_registry_are_those_of_the_events(d):
    """Of 130 users in batches, with fractional rewards, over all counters; to twelve decimals."""
    start(d, {"a": 0.3, "b": 0.2})
    expected = Tally.of(3)
    for batch in range(3):
        users = [f"u{batch}-{i}" for i in range((50, 70, 10)[batch])]
        reward(d, *users, value=0.25 * (batch + 1), shard=batch)
        for user in users:
            expected += tally_of(served(d), user, 0.25 * (batch + 1))
    found = d.world.experiments.tally("digits", d.state.experiment.id, variants=3)

    assert found.users == expected.users
    assert found.rewards == pytest.approx(expected.rewards)
    for one, other in zip(found.versus, expected.versus, strict=True):
        assert one.capital == pytest.approx(other.capital, abs=1e-9)
        assert (one.own, one.champion) == pytest.approx((other.own, other.champion))
    assert len(found.versus[0].capital) == len(BETS)


def test_recorders_at_once_count_every_user_once(d):
    """Four threads send overlapping batches."""
    start(d)
    threads = [
        threading.Thread(target=reward, args=(d, *(f"u{i}" for i in range(10 * n, 10 * n + 30))), kwargs={"shard": n})
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(standing(d.world, d.state).tally.users) == 60


def test_a_counter_that_is_busy_is_left_for_the_next(d, monkeypatch):
    """Transactions that collide are tried again elsewhere, and given up in words when all collide."""
    start(d)
    real, tried, waited = d.clients.dynamodb.transact_write_items, [], []
    monkeypatch.setattr(d.world.experiments, "_sleep", waited.append)

    def busy(times):
        def write(**asked):
            tried.append(asked["TransactItems"][-1]["Update"]["Key"]["sk"]["S"][-1])
            if len(tried) <= times:
                reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
                error = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}
                raise ClientError(error, "TransactWriteItems")
            return real(**asked)

        return write

    monkeypatch.setattr(d.clients.dynamodb, "transact_write_items", busy(2))
    assert reward(d, "ada", shard=7).new == 1
    assert tried == ["7", "0", "1"]
    assert waited == [0.01, 0.02]

    tried.clear()
    monkeypatch.setattr(d.clients.dynamodb, "transact_write_items", busy(99))
    with pytest.raises(NotReady, match="send them again"):
        reward(d, "bob")
    assert len(tried) == SHARDS


def test_another_error_is_not_taken_for_a_user_who_is_known(d, monkeypatch):
    """Nothing may be lost by calling it counted."""
    start(d)
    error = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": [{"Code": "ValidationError"}]}

    def write(**_):
        raise ClientError(error, "TransactWriteItems")

    monkeypatch.setattr(d.clients.dynamodb, "transact_write_items", write)
    with pytest.raises(RuntimeError, match="ValidationError"):
        reward(d, "ada")


def test_rewards_without_an_experiment_or_after_a_year_are_refused(d):
    """A user's item is kept for longer than that, so nobody counts twice."""
    with pytest.raises(NotFound, match="no experiment runs"):
        reward(d, "ada")
    start(d)
    reward(d, "ada")
    items = d.clients.dynamodb.scan(TableName="registry")["Items"]
    [kept] = [int(i["expires"]["N"]) for i in items if "#USER#" in i["sk"]["S"]]
    assert kept > (d.now + timedelta(days=366)).timestamp()
    assert not any("ada" in i["sk"]["S"] for i in items if "#USER#" in i["sk"]["S"])

    d.now += timedelta(days=366)
    with pytest.raises(Refused, match="more than 365 days"):
        reward(d, "bob")


def test_rewards_reach_significance(d):
    """Sixty users of a challenger at 50 %, none of the champion's: better, by any count."""
    start(d, {"challenger": 0.5})
    reward(d, *users_of(d, "challenger", 60))
    [finding] = standing(d.world, d.state).findings

    assert finding.decision == "better"
    assert finding.p < 1e-6


# -- the brake --------------------------------------------------------------------------------------------------------


def test_a_challenger_that_fails_its_users_loses_them_and_the_others_go_on(d):
    """Compared with the champion minute by minute; the reason has the numbers; the next revision is without it."""
    start(d, {"a": 0.2, "b": 0.2})
    for _ in range(8):
        count(d, "champion", requests=60)
        count(d, "a", requests=20, failures=6)
        count(d, "b", requests=20)
        d.tick()

    [braked] = [e for e in d.world.registry.ledger("digits") if e.kind == "VariantBraked"]
    assert braked.severity == "critical"
    assert " of a failed against 0 of " in braked.reason
    assert (served(d).share("a"), served(d).share("b"), served(d).share("champion")) == (0.0, 0.2, 0.8)
    with pytest.raises(Refused, match="was braked"):
        ramp_experiment(d.world, "digits", {"a": 0.1}, reason="again", actor="ada", now=d.now)
    with pytest.raises(Refused, match="cannot win"):
        end_experiment(d.world, "digits", winner="a", reason="so", actor="ada", now=d.now)


def test_when_the_last_challenger_is_braked_the_experiment_is_over(d):
    """There is nothing left to compare."""
    start(d)
    for _ in range(8):
        if d.state.experiment:
            count(d, "champion", requests=90)
            count(d, "challenger", requests=10, failures=5)
        d.tick()
    d.settle()

    assert d.state.experiment is None
    assert served(d) is None
    braked = d.kinds.index("VariantBraked")
    assert d.kinds[braked + 1] == "ExperimentEnded"
    assert d.world.registry.ledger("digits")[braked + 1].reason.endswith("every challenger was braked")


def test_a_paused_endpoint_keeps_its_brake(d):
    """Shares that somebody asked for wait; the users of a variant that fails them do not."""
    start(d, {"a": 0.2, "b": 0.2})
    pause(d.world, "digits", reason="audit", actor="grace", now=d.now)
    ramp_experiment(d.world, "digits", {"b": 0.5}, reason="more", actor="ada", now=d.now)
    for _ in range(10):
        count(d, "champion", requests=60)
        count(d, "a", requests=20, failures=10)
        count(d, "b", requests=20)
        d.tick()
    d.settle()

    assert (served(d).share("a"), served(d).share("b")) == (0.0, 0.2)
    assert d.state.paused
    resume(d.world, "digits", reason="", actor="grace", now=d.now)
    d.settle()
    assert (served(d).share("a"), served(d).share("b")) == (0.0, 0.5)


def test_a_ramp_that_waits_while_paused_does_not_bring_a_braked_variant_back(d):
    """It was queued before the brake; when the pause ends, other shares than it carries are asked for."""
    start(d, {"a": 0.1, "b": 0.2})
    ramp_experiment(d.world, "digits", {"a": 0.4}, reason="more", actor="ada", now=d.now)
    d.world.registry.commit(moves.proposed(d.state, now=d.now))
    pause(d.world, "digits", reason="audit", actor="grace", now=d.now)
    for _ in range(10):
        count(d, "champion", requests=70)
        count(d, "a", requests=10, failures=8)
        count(d, "b", requests=20)
        d.tick()
    d.settle()
    assert (served(d).share("a"), served(d).share("b")) == (0.0, 0.2)
    resume(d.world, "digits", reason="", actor="grace", now=d.now)
    d.settle()

    assert (served(d).share("a"), served(d).share("b")) == (0.0, 0.2)
    assert d.state.queue == ()


def test_a_paused_bandit_moves_nobody(d):
    """Earning more is no reason to move users of an endpoint that somebody holds still."""
    start(d, {"challenger": 0.2}, bandit=True, floor=0.1)
    reward(d, *users_of(d, "challenger", 60), *users_of(d, "champion", 20))
    pause(d.world, "digits", reason="audit", actor="grace", now=d.now)
    for _ in range(20):
        d.tick(6)

    assert d.kinds.count("SharesChanged") == 0


def test_failures_of_all_alike_brake_nobody(d):
    """What they all lean on is broken."""
    start(d)
    for _ in range(10):
        count(d, "champion", requests=90, failures=27)
        count(d, "challenger", requests=10, failures=3)
        d.tick()

    assert d.state.experiment.share("challenger") == 0.1


def test_a_minute_of_the_brake_counts_once(d):
    """Two runs that looked at the same state: the second is told to read again."""
    start(d)
    seen = brake.begin(d.now)
    later = brake.look(seen, "champion", [], until=d.now + timedelta(minutes=1))
    identity = "digits-x000099"
    d.world.experiments.keep_watch("digits", identity, None, seen, expires=d.now)
    d.world.experiments.keep_watch("digits", identity, seen, later, expires=d.now)
    for before in (None, seen):
        with pytest.raises(Conflict):
            d.world.experiments.keep_watch("digits", identity, before, later, expires=d.now)

    assert d.world.experiments.watch("digits", identity) == later


# -- the bandit -------------------------------------------------------------------------------------------------------


def test_a_bandit_moves_users_to_what_earns_more_once_an_hour(d):
    """With a floor for the others; before the hour nothing moves."""
    start(d, {"challenger": 0.2}, bandit=True, floor=0.1)
    reward(d, *users_of(d, "challenger", 60), *users_of(d, "champion", 20))
    for _ in range(20):
        count(d, "champion", requests=80)
        count(d, "challenger", requests=20)
        d.tick()
    assert d.kinds.count("SharesChanged") == 0
    for _ in range(10):
        d.tick(6)

    entry = next(e for e in d.world.registry.ledger("digits") if e.kind == "SharesChanged")
    assert entry.actor == "bandit"
    assert "probability of being best: champion 0.0%, challenger 100.0%" in entry.reason
    assert served(d).share("challenger") == 0.9
    assert d.kinds.count("SharesChanged") == 1


def test_a_bandit_leaves_alone_what_is_nearly_right(d):
    """A revision for one user in two hundred would cost more than it brings."""
    start(d, {"challenger": 0.9}, bandit=True, floor=0.1)
    reward(d, *users_of(d, "challenger", 90))
    for _ in range(5):
        count(d, "champion", requests=50)
        count(d, "challenger", requests=50)
        d.tick()
    for _ in range(10):
        d.tick(7)

    assert "SharesChanged" not in d.kinds


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_a_winner_is_the_next_rollout_by_the_endpoints_own_strategy(canary):
    """It takes the steps from the experiment's revision, and carries no experiment."""
    d = canary
    start(d)
    through(d)
    said = end_experiment(d.world, "digits", winner="challenger", reason="it sells", actor="ada", now=d.now)
    d.tick()

    assert "challenger (v2) wins: it sells" in said
    assert d.alias == Routing(version="3", other="4", weight=0.05)
    through(d)
    assert d.state.stable.pointer.version == "v2"
    assert d.state.stable.number == d.world.registry.require_version("digits", "v2").number
    assert served(d) is None


def test_without_a_winner_the_champion_goes_on_alone(d):
    """PERCH_EXPERIMENT is gone, in a direct rollout, once."""
    start(d)
    end_experiment(d.world, "digits", winner=None, reason="no time", actor="ada", now=d.now)
    d.settle()

    assert d.state.stable.pointer.version == "v1"
    assert "PERCH_EXPERIMENT" not in environment(d)
    assert d.alias == Routing(version="4")
    assert d.tick().done == ()


def test_a_champion_that_wins_needs_no_rollout_of_its_own(d):
    """It serves already; only the experiment goes."""
    start(d)
    end_experiment(d.world, "digits", winner="champion", reason="as ever", actor="ada", now=d.now)
    d.settle()

    assert (d.state.stable.pointer.version, served(d), d.state.queue) == ("v1", None, ())


def test_a_winner_that_does_not_pass_leaves_the_champion(d):
    """Its rollout is refused, and the experiment is withdrawn all the same, in finitely many moves."""
    start(d)
    d.predictors.broken["v2"] = answers(500, "broken since")
    end_experiment(d.world, "digits", winner="challenger", reason="it sells", actor="ada", now=d.now)
    d.settle()

    assert (d.state.stable.pointer.version, served(d)) == ("v1", None)


def test_a_withdrawal_that_does_not_pass_is_not_tried_for_ever(d):
    """What is served goes on being served, and the ledger is not filled."""
    start(d)
    d.predictors.broken["v1"] = answers(500, "broken since")
    end_experiment(d.world, "digits", winner=None, reason="no time", actor="ada", now=d.now)
    d.settle()

    assert d.kinds.count("RolloutRefused") == 1
    assert d.alias == Routing(version="3")
