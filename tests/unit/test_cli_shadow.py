"""`perch rollouts shadow`: what it says of the replays of a rollout, to people and to programs."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from perch.cli.app import app
from perch.cli.context import Context
from perch.domain.agreement import Answer, Mark, Replayed, compare
from perch.domain.policy import RolloutPolicy, Step
from tests.unit.values import T0, shifting

POLICY = RolloutPolicy(
    strategy="shadow", steps=(Step(weight=0.0, hold_s=60, requests=3), Step(weight=0.5, hold_s=60)), agreement=0.9
)


@pytest.fixture
def replays(monkeypatch):
    """The answers of four requests, one different and one crash, of the one rollout that there is."""
    good = Answer(status=200, predictions=(7,), probabilities=((0.9, 0.1),), latency_ms=2.0)
    other = replace(good, predictions=(1,), probabilities=((0.4, 0.6),), latency_ms=8.0)
    down = Answer(status=502, error="Task timed out")
    pairs = [compare(str(n), good, other if n == 3 else down if n == 4 else good, tolerance=0) for n in range(1, 5)]
    stored = {"digits-000002": sum(pairs, Replayed()) + Replayed(forward=Mark(at=T0), runs=1)}
    rollout = replace(shifting().rollout, policy=POLICY)
    registry = SimpleNamespace(
        rollout=lambda _, found: rollout if found == rollout.id else None,
        replayed=lambda _, found: stored.get(found),
    )
    monkeypatch.setattr(Context, "world", SimpleNamespace(registry=registry))
    return stored


def perch(*arguments):
    return CliRunner().invoke(app, ["rollouts", "shadow", *arguments])


def test_people_are_told_whether_it_is_ready_and_what_differs(replays):
    """The verdict with its numbers, latencies of both, and each request that was answered differently."""
    shown = perch("digits-000002")

    assert shown.exit_code == 0, shown.output
    assert "digits-000002: digits v2 against v1 (revision 2)" in shown.output
    assert "not ready: answers agree less than the 90.0% that are asked for: 2 of 4" in shown.output
    assert ["candidate", "2.03", "7.95", "7.95", "3"] in [line.split() for line in shown.output.splitlines()]
    assert "moved by" in shown.output
    assert "row 1: 1, stable 7" in shown.output
    assert "502 Task timed out" in shown.output
    assert "Requests up to 2026-03-01 12:00:00 UTC were replayed; 0 skipped." in shown.output


def test_programs_are_told_the_same_as_one_document(replays):
    """Nothing else stands on standard output."""
    document = json.loads(perch("digits-000002", "--json").stdout)

    assert document["ready"] is False
    assert (document["pairs"], document["agreed"], document["candidate_failed_only"]) == (4, 2, 1)
    assert (document["pairs_needed"], document["agreement_needed"]) == (3, 0.9)
    assert document["candidate_ms"]["p99"] == pytest.approx(8.0, rel=0.03)
    assert [d["request_id"] for d in document["differences"]] == ["3", "4"]


def test_before_the_first_replay_nothing_is_known(replays):
    """It says so, rather than showing empty tables."""
    replays.clear()
    shown = perch("digits-000002")

    assert "not known yet: needs 3 compared answers, has 0; no request was replayed yet" in shown.output
    assert json.loads(perch("digits-000002", "--json").stdout)["ready"] is None


def test_a_rollout_that_is_not_there_is_said_to_be_missing(replays):
    """With the command that lists those that are."""
    shown = perch("digits-000099")

    assert shown.exit_code != 0
    assert "perch rollouts list" in shown.output
