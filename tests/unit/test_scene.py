"""The picture and the story of a rollout: what people are shown follows from what was counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from perch.cli.explain import _page
from perch.cli.saying import say_odds, say_rules, step_of
from perch.cli.scene import scene
from perch.cli.story import tell
from perch.domain import moves
from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.policy import RolloutPolicy, Step
from perch.domain.rollout import Phase
from tests.unit.history import BEGAN, Now, arm, play
from tests.unit.test_rejudge import GUARDS, USUAL, histories, policy_of
from tests.unit.values import minutes

STEPS = (
    Step(weight=0.05, hold_s=600, requests=50),
    Step(weight=0.25, hold_s=1800, requests=200, proof=True, gate="person"),
    Step(weight=1.0, hold_s=3600, watch=True),
)
POLICY = policy_of(*STEPS, guards=replace(GUARDS, dry_run=("latency",), error_increase=None))


def counts(requests, failures=0, slow=0):
    timed = requests - failures
    return arm(
        requests, failures, timed=timed, slower=(timed // 2, timed // 20 + slow, timed // 100, 0, 0),
        bins=(timed // 2, timed // 4, timed - timed // 2 - timed // 4), custom=(0,),
    )  # fmt: skip


def drawn(history, width=100, *, at=None, **fields) -> str:
    """The text of a picture, as a terminal of that width shows it."""
    console = Console(file=StringIO(), width=width, record=True)
    look = replace(history.looks[-1], **fields) if history.looks else None
    console.print(scene(history.rollout, history.tally, look, at or (look.at if look else BEGAN)))
    return console.export_text()


GOOD = [(counts(60), counts(1100, 3))] * 11 + [(counts(250, i % 3 > 0), counts(750, 2)) for i in range(12)]
BAD = [(counts(60), counts(1100, 3))] * 11 + [(counts(250, 6), counts(750, 2))] * 22


def test_the_picture_says_where_it_is_and_how_long_it_still_holds():
    """Steps passed, the one under way with what is left of its hold, and those to come."""
    history = play(GOOD, POLICY, measures=USUAL)
    text = drawn(history)

    assert history.rollout.step == 1
    assert "✓ step 1 5% for 10m, 50 requests" in text
    assert "▶ step 2 25% for 30m, 200 requests, until shown to be no worse, until a person says yes  16m left" in (
        " ".join(text.replace("│", " ").split()).replace("yes 16m", "yes  16m")
    )
    assert "· step 3 bake, 100% for 1h" in text


def test_the_picture_has_the_counts_of_both_and_the_evidence_for_and_against():
    """Requests and failures of the rollout and of the step, each guard with its E, and the proof that is asked for."""
    history = play(GOOD, POLICY, measures=USUAL)
    rows = [line.strip("│ ").split() for line in drawn(history).splitlines()]
    ours, step = history.tally.candidate, history.tally.candidate_step

    assert ["candidate", f"{ours.requests:,}", "8", f"{ours.rate:.2%}", f"{step.requests:,}", "8"] in rows
    assert any(row[:1] == ["errors"] and "·" in row[1] for row in rows)
    assert any(row[:1] == ["latency"] and row[-2:] == ["dry", "run"] for row in rows)
    assert any(row[:2] == ["within", "level"] and row[2] == "█" * 20 for row in rows)
    assert ["latency_p99_ms", "within", "its", "limit"] in rows


def test_the_bar_of_a_guard_is_full_when_it_is_enough():
    """And the step at which the rollout fell is crossed out, with the judge's reason below."""
    history = play(BAD, POLICY, measures=USUAL)
    text = drawn(history)
    together = next(line for line in text.splitlines() if "all guards" in line)

    assert history.rollout.phase is Phase.ROLLED_BACK
    assert "█" * 20 in together
    assert "of 20, which rolls back" in together
    assert "✗ step 2" in text
    assert "judge: roll back: " in text


def test_pauses_gates_alarms_and_replays_are_in_the_picture():
    """Whatever holds a rollout is said, with the command that answers a gate."""
    gated = policy_of(Step(weight=0.1, hold_s=60, requests=5, gate="person"), Step(weight=0.5, hold_s=60))
    history = play([(counts(100), counts(900))] * 4, gated, measures=USUAL)
    alarm = AlarmSeen(name="perch/digits/failures", in_alarm=True, since=BEGAN, reason="[7.0] > [5.0]")
    text = drawn(history, 160, alarms=(alarm,), replayed=Replayed(pairs=4, agreed=3), paused="lunch (by ada)")

    assert "paused: lunch (by ada)" in text
    assert f"perch rollouts answer {history.rollout.id} 1 --yes" in text
    assert "alarm perch/digits/failures: [7.0] > [5.0]" in text
    assert "replayed: 3 of 4 replayed answers agree" in text


def test_before_the_first_look_there_is_a_picture_too():
    """A rollout that is being prepared has a phase and a reason, and no numbers."""
    history = play([], POLICY)
    console = Console(file=StringIO(), width=80, record=True)
    console.print(scene(replace(history.rollout, phase=Phase.PROBING, step=-1), None, None, BEGAN, paused="lunch"))
    text = console.export_text()

    assert "probing" in text
    assert "paused: lunch" in text
    assert "all guards" not in text


@settings(max_examples=40)
@given(histories(), st.sampled_from([60, 80, 120]))
def test_every_rollout_can_be_drawn_and_told(history, width):
    """Whatever happened to it: no line is wider than the terminal, and every part of the story has words."""
    policy, counted, happens, measures = history
    done = play(counted, policy, happens=happens, measures=measures)

    assert all(cell_len(line) <= width for line in drawn(done, width).splitlines())
    for every_look in (False, True):
        sections = tell(done.rollout, done.entries, done.looks, every_look=every_look)
        assert all(section.sentences or section.table for section in sections)
        assert all(len(row) == len(section.table[0]) for section in sections for row in section.table)
        assert "\n".join(_page(sections)).startswith(f"# {done.rollout.id}: ")


def test_the_story_sums_up_each_step_and_gives_a_sum_for_a_pencil():
    """Counts by step add up to the tally's; failures that chance alone would give the candidate are a tenth here."""
    told = {}
    for name, counted in (("long", BAD), ("even", [(counts(100, 2), counts(900, 3))] * 4)):
        history = play(counted, POLICY, measures=USUAL)
        sections = {s.heading: s for s in tell(history.rollout, history.entries, history.looks)}
        rows = sections["What was counted, step by step"].table[1:]
        failed = [row[4].split(" of ") for row in rows]
        told[name] = next(s for s in sections["To check it by hand"].sentences if s.startswith("With a pencil"))

        assert sum(int(part) for part, _ in failed) == history.tally.candidate.failures
        assert sum(int(whole.replace(",", "")) for _, whole in failed) == history.tally.candidate.requests
        assert f"it had {history.tally.candidate.failures}." in told[name]

    assert "Over 3 minutes with requests to both, that makes 1.5 failures" in told["even"]


def test_what_others_wrote_is_no_markup_on_the_page():
    """A reason with brackets, bars or tags stays what it is."""
    at = BEGAN + minutes(2)
    say = {0: Now(say=lambda s: moves.pause(s, "a | b <script> [x](y)", actor="ada", now=at))}
    history = play([(counts(60), counts(940))], POLICY, measures=USUAL, happens=say)
    page = "\n".join(_page(tell(history.rollout, history.entries, history.looks)))

    assert "a \\| b &lt;script> \\[x](y)" in page


def test_steps_of_every_kind_are_said():
    """Shadow, canary within a budget, proof, gates, holdback and bake."""
    policy = RolloutPolicy(
        strategy="canary",
        steps=(
            Step(weight=0.0, hold_s=600, requests=100),
            Step(weight=0.05, hold_s=3600, requests=20, proof=True),
            Step(weight=0.5, hold_s=0, gate="load-test"),
            Step(weight=0.98, hold_s=86_400, watch=True),
            Step(weight=1.0, hold_s=1800, watch=True),
        ),
        budget=50,
        ceiling=0.5,
    )

    assert say_rules(policy) == [
        "shadow for 10m, 100 compared answers, 95% of them the same",
        "5% (up to 50%, or less, by the budget) for 1h, 20 requests, until shown to be no worse",
        "50% (up to 50%, or less, by the budget) until the hook 'load-test' says yes",
        "holdback, 98% for 1d",
        "bake, 100% for 30m",
    ]


def test_a_step_is_said_with_the_share_that_it_has_now():
    """A budget may have changed its weight."""
    rollout = play([], POLICY).rollout
    raised = replace(rollout, shifts=(replace(rollout.shifts[0], weight=0.08),))

    assert step_of(rollout) == "step 1 of 3, 5%"
    assert step_of(raised) == "step 1 of 3, 8%"
    assert step_of(replace(rollout, step=-1)) == "before step 1 of 3"


@pytest.mark.parametrize(("failures", "words"), [(0, "nothing is known yet"), (9, "between")])
def test_the_odds_ratio_is_said_with_an_interval_or_not_at_all(failures, words):
    """Before anything is known, no number is made up."""
    history = play([(counts(200, failures), counts(800, failures))] * 2, policy_of(*STEPS), measures=USUAL)

    assert words in say_odds(history.rollout, history.tally)


def test_time_that_is_left_is_of_now():
    """The same tally an hour later has less of its hold to wait for."""
    history = play(GOOD, POLICY, measures=USUAL)

    assert "1m left" in drawn(history, at=history.looks[-1].at + timedelta(minutes=15))
    assert "m left" not in drawn(history, at=history.looks[-1].at + timedelta(minutes=17))
