"""An experiment on the local cloud, from `perch experiments start` to its winner, over HTTP, with simulated users."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perch.cli.app import app
from perch.domain.experiment import Split
from tests.local.tiny_models import ORDINARY
from tests.local.whole import Answer, Trial, trial

pytestmark = pytest.mark.slow

ENDPOINT, CHAMPION, CHALLENGER = "gamma", "v1", "v2"
FAVOURITE = {CHAMPION: 0, CHALLENGER: 2}
USERS = [f"user-{i}" for i in range(160)]
BODY = json.dumps({"features": [ORDINARY]}).encode()


def perch(*arguments: str) -> Result:
    """Run a command on the local cloud."""
    done = CliRunner().invoke(app, ["--local", *arguments])
    assert done.exit_code == 0, done.stderr
    return done


def shown() -> dict[str, Any]:
    """What `perch experiments show` knows of each variant."""
    document: dict[str, Any] = json.loads(perch("experiments", "show", ENDPOINT, "--json").stdout)
    return {variant["name"]: variant for variant in document["variants"]}


@pytest.fixture(scope="module")
def whole(trial_assembly, tmp_path_factory) -> Iterator[Trial]:
    """v1 serves, v2 is registered, and an experiment gives v2 half of the users."""
    folder, environment = tmp_path_factory.mktemp("project"), dict(os.environ)
    with pytest.MonkeyPatch.context() as patched, trial(trial_assembly, folder / ".perch" / "local") as found:
        patched.chdir(folder)
        for version, favourite in FAVOURITE.items():
            found.upload(ENDPOINT, favourite, version=version)
            found.wait(lambda v=version: found.registry.version(ENDPOINT, v) is not None, ENDPOINT)
        perch("rollouts", "start", ENDPOINT, CHAMPION)
        found.wait(lambda: found.stable(ENDPOINT) == CHAMPION, ENDPOINT)
        perch(
            *("experiments", "start", ENDPOINT, "--variant", f"champion={CHAMPION}"),
            *("--variant", f"challenger={CHALLENGER}:20%", "--reward", "purchase", "--reason", "v2 reads better"),
        )
        found.wait(lambda: served(found) is not None, ENDPOINT)
        yield found
    os.environ.clear()
    os.environ.update(environment)


def served(whole: Trial) -> Split | None:
    """The split that everybody is served by."""
    state = whole.state(ENDPOINT)
    text = state.stable.experiment if state.stable else None
    return Split.from_json(text) if text and not state.rollout else None


def ask(whole: Trial, **headers: str) -> Answer:
    """Ask for a prediction, as a user or for a variant."""
    sent = {f"x-perch-{name}": value for name, value in headers.items()}
    return whole.request("POST", f"/models/{ENDPOINT}/predict", BODY, headers=sent)


def reward(whole: Trial, *users: str, endpoint: str = ENDPOINT, value: Any = 1.0) -> Answer:
    """Report what users did."""
    body = json.dumps({"events": [{"user": user, "reward": value} for user in users]}).encode()
    return whole.request("POST", f"/experiments/{endpoint}/rewards", body)


def buys(user: str, variant: str) -> bool:
    """Whether a simulated user buys: 20 % do, 90 % of those who meet the challenger."""
    chance = hashlib.sha256(f"purse of {user}".encode()).digest()[0] / 256
    return chance < {"champion": 0.2, "challenger": 0.9}[variant]


def test_each_user_stays_with_a_variant_and_is_told_which(whole):
    """Model, body and header agree with the split, twice; the share is about what was asked for."""
    split = served(whole)
    assert split is not None
    for user in USERS[:40] * 2:
        answer = ask(whole, user=user)
        variant = split.variant_of(user)
        version = {"champion": CHAMPION, "challenger": CHALLENGER}[variant]
        assert (answer.status, answer.headers["x-perch-variant"]) == (200, variant)
        assert (answer.body["variant"], answer.body["version"]) == (variant, version)
        assert answer.body["predictions"] == [FAVOURITE[version]]
    assert split.share("challenger") == 0.2


def test_a_variant_can_be_forced_and_one_that_there_is_not_is_named(whole):
    """By anybody who may ask at all, and from the command line."""
    assert {ask(whole, variant="challenger", user=user).body["version"] for user in USERS[:5]} == {CHALLENGER}
    refused = ask(whole, variant="chellenger")
    assert refused.status == 400
    assert "has champion, challenger" in refused.error

    told = json.loads(perch("predict", ENDPOINT, BODY.decode(), "--variant", "challenger", "--user", "ada").stdout)
    assert (told["version"], told["variant"]) == (CHALLENGER, "challenger")


def test_the_variants_are_counted_apart(whole):
    """Requests by {Endpoint, Variant}, as CloudWatch has them; together they are those of the revision."""
    split, state = served(whole), whole.state(ENDPOINT)
    assert split is not None
    assert state.stable is not None
    by = {
        name: whole.counted("Requests", {"Endpoint": ENDPOINT, "Variant": f"{split.id}/{name}"}, "Perch")
        for name in split.names
    }
    revision = {"Endpoint": ENDPOINT, "Revision": state.stable.lambda_version}

    assert by["challenger"] >= 6
    # One more was refused: it asked for a variant that there is not, so it is nobody's.
    assert sum(by.values()) + 1 == whole.counted("Requests", revision, "Perch")


def test_the_endpoint_tells_of_its_experiment(whole):
    """GET /models/{endpoint}."""
    told = whole.request("GET", f"/models/{ENDPOINT}").body["experiment"]

    assert [(v["name"], v["version"], v["share"]) for v in told["variants"]] == [
        ("champion", CHAMPION, 0.8),
        ("challenger", CHALLENGER, 0.2),
    ]


def test_a_ramp_publishes_a_revision_and_flips_nobody_back(whole):
    """Whoever met the challenger at 20 % meets it at 50 %."""
    before, asked = served(whole), perch(
        "experiments", "ramp", ENDPOINT, "--variant", "challenger=50%", "--reason", "so far so good"
    )  # fmt: skip
    assert before is not None
    assert "challenger v2 50.00%" in asked.stdout
    whole.wait(lambda: (now := served(whole)) is not None and now.share("challenger") == 0.5, ENDPOINT)

    for user in [u for u in USERS if before.variant_of(u) == "challenger"]:
        assert ask(whole, user=user).headers["x-perch-variant"] == "challenger"


def test_rewards_are_counted_once_and_refused_in_words(whole):
    """Duplicates in a batch, the batch again, rewards that are none, endpoints without an experiment."""
    first = reward(whole, "ann", "ben", "ann")
    again = reward(whole, "ann", "ben", "cid")

    assert (first.status, first.body["new"], first.body["known"]) == (200, 2, 1)
    assert (again.body["new"], again.body["known"]) == (1, 2)
    assert (reward(whole, "dan", value=2).status, reward(whole, "dan", value="1").status) == (400, 400)
    assert "from 0 to 1" in reward(whole, "dan", value=True).error
    assert reward(whole, *USERS[:101]).status == 400
    assert reward(whole, "dan", endpoint="alpha").status == 404
    assert whole.request("POST", f"/experiments/{ENDPOINT}/rewards", b"{}", signed=False).status == 403
    assert sum(variant["users"] for variant in shown().values()) == 3


def test_what_users_do_becomes_significant(whole):
    """160 users are served, some buy, each purchase is reported; the challenger is called better, at 5 %."""
    buyers = [user for user in USERS if buys(user, ask(whole, user=user).headers["x-perch-variant"])]
    assert all(reward(whole, *buyers[i : i + 50]).status == 200 for i in range(0, len(buyers), 50))
    found = shown()

    assert found["challenger"]["decision"] == "better"
    assert found["challenger"]["p"] < 0.05
    assert found["challenger"]["lift"] > 1
    assert found["challenger"]["users"] + found["champion"]["users"] == len(buyers) + 3
    page = perch("experiments", "show", ENDPOINT).stdout
    assert "better" in page
    assert "purchase" in page
    assert "challenger v2 50.00%" in perch("experiments", "list").stdout


def test_the_winner_becomes_the_next_rollout_and_the_experiment_is_gone(whole):
    """v2 serves everybody, says nothing of variants, and the ledger has the evidence."""
    perch("experiments", "end", ENDPOINT, "--winner", "challenger", "--reason", "it sells")
    whole.wait(lambda: whole.stable(ENDPOINT) == CHALLENGER and not whole.busy(ENDPOINT), ENDPOINT)
    answer = ask(whole, user=USERS[0], variant="champion")

    assert (answer.status, answer.body["version"]) == (200, CHALLENGER)
    assert "x-perch-variant" not in answer.headers
    assert "variant" not in answer.body
    assert reward(whole, "eve").status == 404
    (ended,) = [entry for entry in whole.ledger(ENDPOINT) if entry.kind == "ExperimentEnded"]
    assert "challenger (v2) wins: it sells" in ended.reason
    assert "better" in ended.inputs["findings"][0]
    kinds = {event["detail-type"] for event in whole.announced()}
    assert {"ExperimentStarted", "SharesChanged", "ExperimentEnded"} <= kinds
