"""`perch rollouts …`, `rollback` and `replay` on strict AWS: each command does what it says, and says what it did."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from perch.cli import watch as watching
from perch.cli.app import app
from perch.cli.context import Context
from perch.domain.policy import Step
from perch.domain.rollout import Phase, Routing
from tests.aws.deployment import deployment
from tests.unit.values import CANARY

__all__ = ["deployment"]

GATED = replace(
    CANARY,
    rollout=replace(
        CANARY.rollout, steps=(Step(weight=0.1, hold_s=300, requests=20, gate="person"), Step(weight=0.5, hold_s=600))
    ),
)


@pytest.fixture
def d(deployment, monkeypatch):
    """v1 serves; the command works on this deployment, at its time, and wakes nobody."""
    deployment.live("v1")
    monkeypatch.setattr(Context, "settings", deployment.world.settings)
    monkeypatch.setattr(Context, "world", deployment.world)
    monkeypatch.setattr(Context, "now", lambda _: deployment.now)
    monkeypatch.setattr(Context, "actor", lambda _: "grace")
    monkeypatch.setattr(Context, "nudge", lambda _: "the rollout driver was woken to take it up")
    return deployment


@pytest.fixture
def moving(d):
    """v2 has its first share of the traffic and a few minutes of it."""
    d.registered("v2")
    d.tick()
    for _ in range(4):
        d.both(1000)
        d.tick()
    return d


def perch(*arguments, stdin=None):
    return CliRunner().invoke(app, list(arguments), input=stdin)


def ask(*arguments):
    result = perch(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def newest(d):
    return d.world.registry.rollouts("digits", limit=1)[0]


# -- what people say ----------------------------------------------------------------------------------------------


def test_start_takes_a_version_through_its_steps_or_directly(d):
    """With --direct all of the traffic goes over at once, after the probes; who asked and why is in the ledger."""
    d.registered("v2", registered_at=d.now)
    d.tick()
    assert perch("rollouts", "abort", "digits", "--reason", "not today").exit_code == 0
    d.settle()

    told = ask("rollouts", "start", "digits", "v2", "--direct", "--reason", "hotfix", "--actor", "ada")
    d.settle()

    assert "hotfix" in told["reason"]
    assert d.alias == Routing(version=d.state.stable.lambda_version)
    assert d.state.stable.pointer.version == "v2"
    assert newest(d).policy.strategy == "direct"


def test_pause_holds_a_rollout_where_it_is_until_resume(moving):
    """Nothing steps forward while it is paused, and status says so with the way out."""
    said = perch("rollouts", "pause", "digits", "--reason", "lunch")
    again = perch("rollouts", "pause", "digits", "--reason", "tea")
    page = perch("status", "digits").stdout
    moving.now = moving.now.replace(hour=14)
    moving.both(1000)
    moving.tick(5)
    held = moving.state.rollout.step
    assert perch("rollouts", "resume", "digits").exit_code == 0
    moving.both(1000)
    moving.tick(5)

    assert "digits is paused: lunch" in said.stdout
    assert again.exit_code == 1
    assert "paused already: lunch (by grace); `perch rollouts resume` ends that pause" in again.stderr
    assert "digits: paused until `perch rollouts resume digits`: lunch (by grace)" in page
    assert held == 0
    assert moving.state.rollout.step == 1


def test_promote_takes_the_next_step_and_says_what_is_lacking(moving):
    """Without a terminal nobody is asked; what the judge misses is told, and in the document."""
    told = perch("rollouts", "promote", "digits", "--reason", "seen enough", "--json")
    moving.tick()

    assert "lacks evidence for step 1: " in json.loads(told.stdout)["lacking"]
    assert "of the hold are left" in told.stderr
    assert moving.state.rollout.step == 1
    assert moving.alias.weight == 0.5
    assert "by grace, without waiting for evidence: seen enough" in newest(moving).reason


def test_promote_asks_on_a_terminal_unless_told_yes(moving, monkeypatch):
    """A no leaves everything as it is; --full with --yes takes all steps at once."""
    monkeypatch.setattr("perch.cli.commands._somebody_there", lambda: True)

    no = perch("rollouts", "promote", "digits", "--reason", "hurry", "--full", stdin="n\n")
    still = moving.state.rollout.step
    yes = perch("rollouts", "promote", "digits", "--reason", "hurry", "--full", "--yes")
    moving.settle()

    assert no.exit_code == 1
    assert "Promote all the same?" in no.output
    assert still == 0
    assert yes.exit_code == 0
    assert newest(moving).phase is Phase.PROMOTED
    assert moving.alias == Routing(version="3")


def test_what_cannot_be_done_says_what_can(d):
    """Exit code 1, one sentence, and nothing on standard output."""
    for arguments, words in (
        (("rollouts", "resume", "digits"), "is not paused; `perch status`"),
        (("rollouts", "promote", "digits", "--reason", "x"), "`perch rollouts start` starts one"),
        (("rollouts", "abort", "digits", "--reason", "x"), "`perch rollback` goes back"),
        (("rollouts", "answer", "digits-000099", "1", "--yes", "--reason", "x"), "`perch status digits`"),
        (("rollouts", "answer", "nosuch-000099", "1", "--no", "--reason", "x"), "declared: digits"),
        (("rollouts", "explain", "digits-000099"), "`perch rollouts list`"),
        (("rollouts", "watch", "--every", "0"), "--every 0"),
        (("rollback", "digits", "--reason", "x", "--to", "v0", "--emergency"), "leave out either"),
        (("rollback", "digits", "--reason", "x", "--to", "v0"), "no earlier revision of v0"),
    ):
        result = perch(*arguments)

        assert result.exit_code == 1, arguments
        assert result.stdout == ""
        assert words in result.stderr


@pytest.mark.parametrize("passed", [True, False])
def test_a_gate_is_answered_by_a_person(d, passed):
    """Yes lets it on, no takes it back; the step is counted from 1, and only an open gate can be answered."""
    d.policy = GATED
    d.registered("v2")
    d.tick()
    early = perch("rollouts", "answer", newest(d).id, "1", "--yes", "--reason", "x")
    for _ in range(10):
        d.both(1000)
        d.tick()
    waits = perch("status", "digits").stdout
    shown = perch("rollouts", "list", "digits").stdout
    told = ask("rollouts", "answer", newest(d).id, "1", "--yes" if passed else "--no", "--reason", "looked at it")
    d.both(1000)
    d.tick()

    assert early.exit_code == 1
    assert "the gate of step 1 of" in early.stderr
    assert "its gate is open and waits for a person: perch rollouts answer digits-" in waits
    assert "step 1 of 2, 10%, at its gate" in shown
    assert (told["step"], told["passed"]) == (1, passed)
    if passed:
        assert d.alias.weight == 0.5
    else:
        assert newest(d).phase is Phase.ROLLED_BACK
        assert "said no: looked at it" in newest(d).reason


def test_promote_answers_an_open_gate(d):
    """It is the same yes, and lacks nothing."""
    d.policy = GATED
    d.registered("v2")
    for _ in range(11):
        d.tick()
        d.both(1000)

    told = ask("rollouts", "promote", "digits", "--reason", "fine")

    assert told["lacking"] == ""
    assert [e.kind for e in d.world.registry.ledger("digits")][-1] == "GatePassed"


def test_rollback_goes_to_a_version_that_served_before(d):
    """With --to, further back than the last one."""
    for version in ("v2", "v3"):
        d.registered(version)
        d.tick()
        assert perch("rollouts", "promote", "digits", "--full", "--yes", "--reason", "x").exit_code == 0
        d.settle()

    told = ask("rollback", "digits", "--to", "v1", "--reason", "both are wrong")
    d.settle()

    assert "v1" in told["reason"]
    assert d.state.stable.pointer.version == "v1"


def test_an_emergency_moves_the_traffic_at_once_and_pauses(moving):
    """Before any tick; with nothing under way it goes to the revision before, and pauses the endpoint."""
    assert moving.alias.other == "3"
    told = ask("rollback", "digits", "--emergency", "--reason", "fire")

    assert told["rolled_back"]
    assert moving.alias == Routing(version="2")
    moving.settle()
    assert newest(moving).phase is Phase.ROLLED_BACK

    perch("rollouts", "resume", "digits")
    perch("rollouts", "start", "digits", "v2", "--direct")
    moving.settle()
    assert moving.alias == Routing(version=moving.state.stable.lambda_version) != Routing(version="2")
    told = ask("rollback", "digits", "--emergency", "--reason", "fire again")

    assert moving.alias == Routing(version="2")
    assert "`perch rollouts resume digits`" in told["reason"]
    assert moving.state.paused.startswith("fire again")


# -- what people see ----------------------------------------------------------------------------------------------


def test_watch_without_a_terminal_is_one_picture(moving):
    """Steps, both revisions' counts, every guard, and the judge's word; as a document with --json."""
    page = perch("rollouts", "watch").stdout
    (document,) = ask("rollouts", "watch", "digits")

    assert "digits v2 instead of v1 (revision 2): shifting" in page
    assert "▶ step 1 5% for 10m, 20 requests" in page
    assert "all guards" in page
    assert "judge: continue: " in page
    assert document["rollout"]["id"] == newest(moving).id
    assert document["look"]["judgement"]["verdict"] == "continue"
    assert document["tally"]["candidate"]["requests"] > 0


def test_watching_changes_nothing(moving):
    """It reads: the tally, the looks and the ledger stay as they are."""
    registry, rollout = moving.world.registry, newest(moving).id
    before = (registry.tally("digits", rollout), list(registry.looks("digits", rollout)), moving.state)

    assert perch("rollouts", "watch", "--once").exit_code == 0
    assert perch("rollouts", "explain", rollout).exit_code == 0

    assert (registry.tally("digits", rollout), list(registry.looks("digits", rollout)), moving.state) == before


def test_with_nothing_under_way_watch_says_so(d):
    """And where to find those that were."""
    result = perch("rollouts", "watch")

    assert result.exit_code == 0
    assert "no rollout of any endpoint is under way; `perch rollouts list`" in result.stderr
    assert ask("rollouts", "watch") == []


@pytest.mark.parametrize(("failures", "exit_code", "phase"), [(0, 0, Phase.PROMOTED), (40, 1, Phase.ROLLED_BACK)])
def test_a_live_watch_ends_with_the_rollout(d, monkeypatch, failures, exit_code, phase):
    """From the queue of a paused endpoint to the end; exit code 0 if it was promoted, 1 if not."""
    perch("rollouts", "pause", "digits", "--reason", "lunch")
    d.registered("v2")
    d.tick()
    sleeps = []

    def time_passes(seconds):
        if not sleeps:
            assert perch("rollouts", "resume", "digits").exit_code == 0
        sleeps.append(seconds)
        d.tick(5)
        d.both(2000, failures=failures if d.alias.other else 0)

    monkeypatch.setattr(watching.time, "sleep", time_passes)
    monkeypatch.setattr(watching, "_on_terminal", lambda: True)
    queued = perch("rollouts", "watch", "--once").stdout if not failures else ""
    result = perch("rollouts", "watch", "digits", "--every", "7")

    assert result.exit_code == exit_code, result.output
    assert failures or "digits: digits v2 waits to begin, paused: lunch (by grace)" in queued
    assert newest(d).phase is phase
    assert phase.value in result.stdout
    assert set(sleeps) == {7.0}


def test_explain_tells_somebody_who_was_asleep(moving, tmp_path, monkeypatch):
    """Why it began, by which rules, what was counted, the verdict, and how to check it; as a page too."""
    monkeypatch.chdir(tmp_path)
    for _ in range(4):
        moving.both(1000, failures=30)
        moving.tick()
    moving.settle()
    rollout = newest(moving)
    story = perch("rollouts", "explain", rollout.id).stdout
    every = perch("rollouts", "explain", rollout.id, "--looks").stdout
    document = ask("rollouts", "explain", rollout.id)
    perch("rollouts", "explain", rollout.id, "--markdown", "page.md")
    page = (tmp_path / "page.md").read_text()

    assert rollout.phase is Phase.ROLLED_BACK
    assert "because its model was uploaded (ada)" in story
    assert "step 1: 5% for 10m, 20 requests" in story
    assert "stable" in story.split("What was usual")[1].splitlines()[1]
    assert "judge decided to take it back at" in story
    assert "With a pencil" in story
    assert f"Every look ({len(document['looks'])})" in every
    assert [e["kind"] for e in document["ledger"]][-1] == "RolloutRolledBack"
    assert document["rollout"]["id"] == rollout.id
    assert page.startswith(f"# {rollout.id}: digits v2 instead of v1 (revision 2), rolled back after")
    assert "| time (UTC) | minute | what | why | who |" in page


# -- judged again -------------------------------------------------------------------------------------------------


def declared(path, policy):
    from perch.domain.codec import dump
    from perch.domain.policy import Settings

    path.write_text(json.dumps(dump(Settings(name="perch", endpoints=(policy,)))))
    return str(path)


def test_replay_by_its_own_policy_changes_nothing(moving, tmp_path):
    """Looks that were stored, read and judged again say the same."""
    for _ in range(4):
        moving.both(1000, failures=30)
        moving.tick()
    own = declared(tmp_path / "own.json", CANARY)
    told = ask("replay", newest(moving).id, "--policy", own)

    assert told["differences"] == told["unknown"] == []
    assert [look["now"] for look in told["looks"]] == [look["was"] for look in told["looks"]]
    assert "It would have gone the same way" in perch("replay", newest(moving).id, "--policy", own).stdout


def test_replay_by_another_policy_says_where_it_differs(moving, tmp_path):
    """A guard that asks for less would have taken it back sooner, and says when."""
    for failures in (2, 2, 30, 30):
        moving.both(1000, failures=failures, stable_failures=10)
        moving.tick()
    nervous = replace(CANARY, guards=replace(CANARY.guards, error_threshold=0.011, min_errors=1))
    path = declared(tmp_path / "new.json", nervous)
    told = ask("replay", newest(moving).id, "--policy", path)
    page = perch("replay", newest(moving).id, "--policy", path, "--endpoint-policy", "digits").stdout

    assert told["differences"][0].startswith("would have rolled back at minute ")
    assert " instead of minute " in told["differences"][0]
    assert f"It {told['differences'][0][:40]}" in page


def test_replay_of_what_was_never_judged_is_refused(d, tmp_path):
    """The first version went direct: there is nothing to judge again."""
    result = perch("replay", newest(d).id, "--policy", declared(tmp_path / "own.json", CANARY))
    direct = replace(CANARY, rollout=replace(CANARY.rollout, steps=()))
    none = perch("replay", newest(d).id, "--policy", declared(tmp_path / "direct.json", direct))

    assert result.exit_code == none.exit_code == 1
    assert "no look at" in result.stderr
    assert "goes direct" in none.stderr
