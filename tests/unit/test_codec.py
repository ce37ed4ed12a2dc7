"""The codec loses nothing."""

import json
from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from perch.domain.alarm_seen import AlarmSeen
from perch.domain.codec import dump, iso, load, parse_time
from perch.domain.evidence import Arm, Minute
from perch.domain.judge import judge
from perch.domain.look import Look
from perch.domain.rollout import Endpoint
from perch.domain.tally import Tally, weigh
from tests.unit.values import T0, live, minutes, shifting


def test_a_whole_endpoint_survives_being_stored():
    """An endpoint in the middle of a rollout is the same after a round trip through JSON."""
    state = shifting()

    assert load(Endpoint, json.loads(json.dumps(dump(state)))) == state


def test_optional_parts_stay_absent():
    """None stays None."""
    assert load(Endpoint, dump(live())).rollout is None


def test_a_document_of_an_older_release_can_be_read():
    """Fields that are missing take their defaults, fields that are unknown are passed over."""
    assert load(Endpoint, {"name": "digits", "colour": "blue"}) == Endpoint(name="digits")


@given(st.datetimes(timezones=st.timezones()))
def test_times_keep_their_instant_and_their_order(at):
    """ISO text names the same instant again."""
    if 1 < at.year < 9999:
        # Compared in UTC: Python calls a local time in the gap of a clock change unequal to every other.
        assert parse_time(iso(at)) == at.astimezone(UTC)


@given(st.lists(st.datetimes(min_value=T0.replace(tzinfo=None)), min_size=2, max_size=5))
def test_text_order_is_time_order(times):
    """Sorting the texts sorts the times, which the registry's keys rely on."""
    aware = [t.replace(tzinfo=T0.tzinfo) for t in times]

    assert [parse_time(t) for t in sorted(map(iso, aware))] == sorted(aware)


@given(st.integers(0, 10**6), st.integers(0, 100), st.text())
def test_a_look_and_its_tally_survive(requests, failures, reason):
    """Tuples of values come back as tuples of values, and the states of tests to the last digit."""
    minute = Minute(
        at=T0 + minutes(3), candidate=Arm(requests=requests + failures, failures=failures), stable=Arm(requests=7)
    )
    rollout = shifting().rollout
    tally = weigh(Tally(until=T0), [minute], rollout)
    alarm = AlarmSeen(name="perch/digits/failures", in_alarm=True, since=T0, reason=reason)
    judgement = judge(rollout, tally, alarms=(alarm,), now=T0 + minutes(5))
    look = Look(at=T0, rollout="digits-1", step=0, weight=0.05, minutes=(minute,), judgement=judgement, alarms=(alarm,))

    assert load(Tally, json.loads(json.dumps(dump(tally)))) == tally
    assert load(Look, json.loads(json.dumps(dump(look)))) == look
