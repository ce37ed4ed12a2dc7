"""Health checks: what is asked, what is kept."""

from perch.app.check_health import check_health
from tests.aws.deployment import answers, deployment

__all__ = ["deployment"]


def check(d):
    return {h.role: h for h in check_health(d.world, d.policy, now=d.now)}


def test_before_the_first_model_there_is_nothing_to_check(deployment):
    """The placeholder is healthy by definition: it promises nothing."""
    assert check(deployment) == {}


def test_stable_and_candidate_are_both_probed(deployment):
    """Each by its own version, not through the alias."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    deployment.predictors.asked.clear()
    checks = check(deployment)

    assert {role: (h.revision, h.healthy) for role, h in checks.items()} == {
        "stable": ("2", True),
        "candidate": ("3", True),
    }
    assert deployment.predictors.asked == [("2", "v1"), ("3", "v2")]


def test_a_failed_probe_is_kept_with_its_answer(deployment):
    """The history names the revision and what it said."""
    deployment.live("v1")
    deployment.predictors.broken["v1"] = answers(500, "the model raised")
    check(deployment)
    [record] = deployment.world.registry.health("digits")

    assert record["healthy"] is False
    assert record["report"]["failure"] == "probe 0: answered 500: the model raised"
    assert (record["role"], record["revision"]) == ("stable", "2")


def test_the_same_check_twice_is_one_record(deployment):
    """An event that comes twice does not write history twice."""
    deployment.live("v1")
    check(deployment)
    check(deployment)

    assert len(deployment.world.registry.health("digits")) == 1
