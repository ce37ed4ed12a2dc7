"""Trust that is taken away: every step towards users asks again; what serves goes on serving, and is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from perch.app.change_experiment import end_experiment, ramp_experiment, start_experiment
from perch.app.command import promote
from perch.app.roll_back import emergency, roll_back_by_hand
from perch.app.start import start
from perch.cli.app import app
from perch.cli.context import Context
from perch.domain import queueing
from perch.domain.errors import Refused
from perch.domain.experiment import Split
from perch.domain.formats import FORMATS
from perch.domain.model import ModelVersion, Pointer
from perch.domain.policy import RolloutPolicy, SigningPolicy
from perch.domain.rollout import Candidate, Phase
from tests.aws import spells
from tests.aws.deployment import FUNCTION, deployment
from tests.unit.values import CANARY

__all__ = ["deployment"]

KEYS = {name: f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n" for name in ("team", "next")}
HINTS = SigningPolicy(keys=KEYS).hints


class Trusting:
    """A deployment of which it is said what it trusts now."""

    def __init__(self, deployment: Any) -> None:
        self.d = deployment
        self.declare("team", allow=True)

    def declare(self, *keys: str, required: bool = False, allow: bool = False, direct: bool = True) -> None:
        """Deploy other settings: trusted keys, and whether the endpoint opts in to files that can run code."""
        rollout = RolloutPolicy() if direct else CANARY.rollout
        policy = replace(self.d.policy, allow=("spell",) if allow else (), rollout=rollout)
        signing = SigningPolicy(required=required, keys={name: KEYS[name] for name in keys})
        settings = replace(self.d.world.settings, signing=signing, endpoints=(policy,))
        self.d.world = replace(self.d.world, settings=settings)
        self.d.policy = policy

    def signed(self, version: str, key: str = "team", *, code: bool = True) -> ModelVersion:
        """Register a version that a key signed, as the registration would; empty: nobody did."""
        number = self.d.world.registry.last_number("digits") + 1
        pointer = Pointer(
            model="digits", version=version, key=f"models/digits/{version}/model", version_id=f"id-{version}",
            sha256=f"{number:064d}", size=10, format="spell" if code else "onnx", signed_by=key, harmless=not code,
        )  # fmt: skip
        found: ModelVersion = self.d.registered(version, pointer=pointer, key_hint=HINTS.get(key, ""))
        return found

    def serve(self, *versions: str, **fields: Any) -> None:
        """Register versions one after the other, each until it serves."""
        for version in versions:
            self.signed(version, **fields)
            self.d.settle()
            assert self.serving == version

    @property
    def serving(self) -> str | None:
        stable = self.d.state.stable
        return stable.pointer.version if stable else None

    @property
    def said(self) -> str:
        """The newest entry of the ledger."""
        entry = list(self.d.world.registry.ledger("digits"))[-1]
        return f"{entry.kind}: {entry.reason}"


@pytest.fixture
def t(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> Trusting:
    monkeypatch.setitem(FORMATS, "spell", spells.SPELL)
    return Trusting(deployment)


NOBODY = f"key team ({HINTS['team'][:12]}…), which signed it, is not trusted any more; trusted: none"
OPT_IN = "which can run code, and endpoint digits does not opt in"


# -- the rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signed_by", "hint", "keys", "why"),
    [
        ("team", "own", ("team",), None),
        ("team", "", ("team",), None),
        ("renamed", "own", ("team",), None),
        ("", "", ("team",), "no trusted key signed it"),
        ("team", "", ("next",), "key team, which signed it, is not trusted any more"),
        ("team", "own", ("next",), "is not trusted any more; trusted: next ("),
        ("team", "other", ("team",), "is not trusted any more; trusted: team ("),
        ("team", "own", (), "trusted: none"),
    ],
)
def test_a_signature_counts_as_long_as_its_key_is_trusted(
    signed_by: str, hint: str, keys: tuple[str, ...], why: str | None
) -> None:
    """The key and not its name: a new key under an old name is another, an old one under a new name the same."""
    signing = SigningPolicy(keys={name: KEYS[name] for name in keys})
    said = signing.distrust(signed_by, {"own": HINTS["team"], "other": HINTS["next"]}.get(hint, ""))
    assert (said is None) == (why is None)
    assert why is None or why in str(said)


@pytest.mark.parametrize(
    ("code", "signed_by", "required", "allowed", "why"),
    [
        (False, "", False, False, None),
        (False, "gone", False, False, None),
        (False, "gone", True, False, "takes signed models only, and key gone"),
        (False, "", True, False, "takes signed models only, and no trusted key signed it"),
        (False, "team", True, False, None),
        (True, "team", False, False, "does not opt in"),
        (True, "team", False, True, None),
        (True, "gone", False, True, "which can run code, and key gone"),
        (True, "", False, True, "which can run code, and no trusted key signed it"),
    ],
)
def test_trust_is_asked_for_only_where_it_is_needed(
    t: Trusting, code: bool, signed_by: str, required: bool, allowed: bool, why: str | None
) -> None:
    """Of files that can run code, and of all where signatures are required."""
    t.declare("team", required=required, allow=allowed)
    found = t.signed("v1", signed_by, code=code)
    said = found.misfit(t.d.policy, t.d.world.settings.signing)
    assert (said is None) == (why is None)
    assert why is None or why in str(said)


# -- before a rollout has traffic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("withdrawn", [(("team",), False, OPT_IN), ((), True, NOBODY)])
def test_what_waits_in_the_queue_does_not_start_once_its_trust_is_withdrawn(t: Trusting, withdrawn: Any) -> None:
    """It was queued under the old policy, behind another rollout; its turn comes under the new one."""
    keys, allow, why = withdrawn
    t.declare("team", allow=True, direct=False)
    t.serve("v1", code=False)
    t.signed("v2", code=False)
    t.d.tick()
    t.signed("v3")
    t.d.tick()
    assert [c.pointer.version for c in t.d.state.queue] == ["v3"]
    t.declare(*keys, allow=allow, direct=False)
    for _ in range(60):
        t.d.both()
        t.d.tick()
    assert (t.serving, t.d.state.rollout, t.d.state.queue) == ("v2", None, ())
    assert t.said.startswith("RolloutRefused: digits v3 is of format spell, which can run code, and ")
    assert why in t.said


def test_a_candidate_whose_trust_is_withdrawn_while_it_is_probed_sees_no_user(t: Trusting) -> None:
    """It is published; then the key is taken away."""
    t.serve("v1", code=False)
    t.signed("v2")
    states = iter([False])
    configuration = t.d.world.functions.configuration

    def busy(function: str, version: str = "$LATEST") -> Any:
        found = configuration(function, version)
        return replace(found, ready=next(states, True)) if version != "$LATEST" else found

    t.d.world.functions.configuration = busy
    t.d.tick()
    assert t.d.state.rollout.phase is Phase.PROBING
    t.declare(allow=True)
    t.d.settle()
    assert (t.serving, t.d.alias.other) == ("v1", None)
    assert NOBODY in t.said


def test_neither_an_upload_nor_a_person_nor_an_experiment_starts_what_is_not_trusted_any_more(t: Trusting) -> None:
    """Each says why, and what would have to be so."""
    t.serve("v1", code=False)
    t.signed("v2")
    t.declare(allow=True)
    t.d.settle()
    assert t.said.startswith("RolloutRefused")
    assert NOBODY in t.said
    with pytest.raises(Refused, match="is not trusted any more"):
        start(t.d.world, "digits", "v2", actor="ada", now=t.d.now)
    with pytest.raises(Refused, match=r"challenger: .* is not trusted any more"):
        start_experiment(
            t.d.world, "digits", {"champion": "v1", "challenger": "v2"}, {"challenger": 0.1},
            reason="why not", actor="ada", now=t.d.now,
        )  # fmt: skip


def test_trust_that_is_given_back_is_enough_to_start(t: Trusting) -> None:
    """Nothing about the version has changed."""
    t.serve("v1", code=False)
    t.signed("v2")
    t.declare(allow=True)
    t.d.settle()
    t.declare("team", allow=True)
    start(t.d.world, "digits", "v2", actor="ada", now=t.d.now)
    t.d.settle()
    assert t.serving == "v2"


# -- what has traffic ---------------------------------------------------------------------------------------------


def test_a_candidate_in_its_steps_gets_no_more_traffic_and_goes_back(t: Trusting) -> None:
    """Stable is there to serve; a person cannot promote it either."""
    t.declare("team", allow=True, direct=False)
    t.serve("v1", code=False)
    t.signed("v2")
    t.d.tick()
    assert t.d.state.rollout.phase is Phase.SHIFTING
    t.declare(allow=True, direct=False)
    with pytest.raises(Refused, match="is not trusted any more"):
        promote(t.d.world, "digits", full=True, reason="now", actor="ada", now=t.d.now)
    t.d.tick()
    assert (t.serving, t.d.alias.other, t.d.state.rollout) == ("v1", None, None)
    assert NOBODY in t.said
    assert t.said.startswith("RolloutRolledBack")


def test_what_serves_is_not_cut_off(t: Trusting) -> None:
    """Its users would pay for it; and a rollout of something else is taken back to it without a question."""
    t.declare("team", allow=True, direct=False)
    t.serve("v1")
    t.declare(direct=False)
    t.signed("v2", code=False)
    t.d.tick()
    t.d.both()
    outcome = roll_back_by_hand(t.d.world, "digits", reason="looks odd", actor="ada", now=t.d.now)
    t.d.settle()
    assert outcome.rolled_back
    assert (t.serving, t.d.alias.version) == ("v1", t.d.state.stable.lambda_version)


def test_new_code_is_not_rolled_out_with_a_version_that_is_not_trusted_any_more(t: Trusting) -> None:
    """That would be the version deployed again. It is said once, and made up for when the trust is back."""
    t.serve("v1")
    revision = t.d.state.stable.lambda_version
    t.declare(allow=True)
    t.d.deploy_code("second")
    t.d.settle()
    t.d.settle()
    assert t.d.kinds.count("CodePassedOver") == 1
    assert NOBODY in t.said
    assert (t.d.state.stable.lambda_version, t.d.state.failed) == (revision, ())
    t.declare("team", allow=True)
    t.d.settle()
    assert t.d.state.stable.lambda_version != revision
    assert t.serving == "v1"


def test_code_that_waits_while_trust_is_withdrawn_is_not_blamed(t: Trusting) -> None:
    """What is refused is the version; the next upload is published from the same code."""
    t.serve("v1")
    t.d.deploy_code("second")
    fingerprint = t.d.world.functions.configuration(FUNCTION).fingerprint
    stable = t.d.state.stable
    code = Candidate(
        pointer=stable.pointer, number=stable.number, cause="code", actor="deployment", fingerprint=fingerprint
    )
    t.d.world.registry.commit(queueing.enqueue(t.d.state, code, now=t.d.now))
    t.declare(allow=True)
    t.d.settle()
    assert (t.d.kinds[-2:], t.d.state.failed) == (["RolloutRefused", "CodePassedOver"], ())
    t.serve("v2", code=False)
    assert t.d.state.stable.fingerprint == fingerprint


# -- going back ---------------------------------------------------------------------------------------------------


def test_going_back_passes_over_what_is_not_trusted_any_more_and_says_so(t: Trusting) -> None:
    """The newest that may serve again is chosen; one that is named is refused with the reason."""
    t.serve("v1", code=False)
    t.serve("v2")
    t.serve("v3", code=False)
    t.declare(allow=True)
    with pytest.raises(Refused, match=r"does not go back: v2 \(revision 3\) may not serve again: .* not trusted any"):
        roll_back_by_hand(t.d.world, "digits", reason="worse", actor="ada", now=t.d.now, to="v2")
    outcome = roll_back_by_hand(t.d.world, "digits", reason="worse", actor="ada", now=t.d.now)
    assert outcome.reason.startswith("going back to v1 (revision 2): worse (v2 (revision 3) may not serve again")
    assert NOBODY in outcome.reason
    t.d.settle()
    assert t.serving == "v1"


def test_going_back_where_nothing_is_trusted_any_more_is_refused(t: Trusting) -> None:
    """In an emergency as well: what can run code does not come back because somebody is in a hurry."""
    t.serve("v1", "v2")
    t.serve("v3", code=False)
    t.declare("next")
    for go_back in (roll_back_by_hand, emergency):
        with pytest.raises(Refused, match=r"v2 .* does not opt in.*; v1 .* does not opt in"):
            go_back(t.d.world, "digits", reason="worse", actor="ada", now=t.d.now)
    assert (t.serving, t.d.state.paused) == ("v3", "")


def test_an_emergency_goes_to_the_last_that_worked_and_may_serve(t: Trusting) -> None:
    """It says which one it passed over, and why."""
    t.serve("v1", code=False)
    t.serve("v2")
    t.serve("v3", code=False)
    t.declare(allow=True)
    emergency(t.d.world, "digits", reason="it burns", actor="ada", now=t.d.now)
    assert (t.serving, t.d.alias.version) == ("v1", "2")
    assert "v2 (revision 3) may not serve again" in t.said


def test_a_way_back_that_waits_is_asked_again(t: Trusting) -> None:
    """Between the command and the tick somebody deployed other settings."""
    t.serve("v1")
    t.serve("v2", code=False)
    roll_back_by_hand(t.d.world, "digits", reason="worse", actor="ada", now=t.d.now)
    t.declare()
    t.d.settle()
    assert t.serving == "v2"
    assert OPT_IN in t.said


def hold_back(t: Trusting, version: str) -> None:
    """Register a version that no rollout takes up by itself."""
    policy = t.d.policy
    t.d.policy = replace(policy, approval="manual")
    t.signed(version)
    t.d.settle()
    t.d.policy = policy


# -- experiments --------------------------------------------------------------------------------------------------


def test_an_experiment_whose_models_serve_goes_on_and_can_be_left(t: Trusting) -> None:
    """Shares and the end only move users between models in service; a winner would be put into service anew."""
    t.serve("v1", code=False)
    hold_back(t, "v2")
    versions = {"champion": "v1", "challenger": "v2"}
    start_experiment(t.d.world, "digits", versions, {"challenger": 0.1}, reason="-", actor="ada", now=t.d.now)
    t.d.settle()
    assert Split.from_json(t.d.state.stable.experiment).share("challenger") == pytest.approx(0.1)
    t.declare(allow=True)
    ramp_experiment(t.d.world, "digits", {"challenger": 0.05}, reason="less", actor="ada", now=t.d.now)
    t.d.settle()
    assert Split.from_json(t.d.state.stable.experiment).share("challenger") == pytest.approx(0.05)
    end_experiment(t.d.world, "digits", winner="challenger", reason="better", actor="ada", now=t.d.now)
    t.d.settle()
    assert (t.serving, t.d.state.stable.experiment) == ("v1", None)
    told = [entry.reason for entry in t.d.world.registry.ledger("digits") if entry.kind == "RolloutRefused"]
    assert len(told) == 1
    assert NOBODY in told[0]


def test_an_experiment_that_would_put_it_into_service_ends_with_the_reason(t: Trusting) -> None:
    """It was started under the old policy, and its revision was not published yet."""
    t.serve("v1", code=False)
    hold_back(t, "v2")
    versions = {"champion": "v1", "challenger": "v2"}
    start_experiment(t.d.world, "digits", versions, {"challenger": 0.1}, reason="-", actor="ada", now=t.d.now)
    t.declare(allow=True)
    t.d.settle()
    assert (t.d.state.experiment, t.d.state.stable.experiment) == (None, None)
    assert t.said.startswith("ExperimentEnded: digits-x")
    assert f"variant challenger: digits v2 is of format spell, which can run code, and {NOBODY}" in t.said


# -- shown --------------------------------------------------------------------------------------------------------


@contextmanager
def commands(t: Trusting) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "settings", t.d.world.settings)
        patch.setattr(Context, "world", t.d.world)
        patch.setattr(Context, "now", lambda _: t.d.now)
        patch.setattr(Context, "place", "a test")
        yield lambda *words: CliRunner().invoke(app, list(words))


def test_status_and_models_show_what_is_not_trusted_any_more(t: Trusting) -> None:
    """With the reason, for people and as JSON; nothing of it while all is well."""
    t.serve("v1")
    with commands(t) as perch:
        assert "serves on" not in perch("status").stdout
        assert json.loads(perch("status", "--json").stdout)["endpoints"][0]["stable"]["misfit"] is None
    t.declare(allow=True)
    with commands(t) as perch:
        page, listed = perch("status"), perch("models")
        stable = json.loads(perch("status", "--json").stdout)["endpoints"][0]["stable"]
        version = json.loads(perch("models", "--json").stdout)[0]
    assert NOBODY in page.stdout
    assert "what serves would not be put into service today, and serves on" in page.stdout
    assert "digits v1 is not put into service on digits" in listed.stdout
    assert NOBODY in stable["misfit"]
    assert (version["key_hint"], list(version["misfits"])) == (HINTS["team"], ["digits"])
