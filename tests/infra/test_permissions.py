"""Each role can do what its function does, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.conftest import Synthesized

# Actions that AWS does not let be narrowed to a resource.
EVERYWHERE = {"cloudwatch:GetMetricData", "cloudwatch:DescribeAlarms"}

LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
DEAD_LETTERS = {"sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"}
MAY = {
    "perch-digits": LOGS | {"s3:GetObject", "s3:GetObjectVersion"},
    "perch-digits-torch": LOGS | {"s3:GetObject", "s3:GetObjectVersion"},
    "perch-describe-api": LOGS,
    "perch-record-rewards": LOGS | {f"dynamodb:{verb}" for verb in ("GetItem", "PutItem", "UpdateItem")},
    "perch-register-model": LOGS
    | DEAD_LETTERS
    | {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "events:PutEvents"}
    | {"s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging"}
    | {f"dynamodb:{verb}" for verb in ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")},
    "perch-drive-rollouts": LOGS
    | DEAD_LETTERS
    | EVERYWHERE
    | {"cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "events:PutEvents"}
    | {f"dynamodb:{verb}" for verb in ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")}
    | {"lambda:GetAlias", "lambda:UpdateAlias", "lambda:CreateAlias", "lambda:PublishVersion", "lambda:InvokeFunction"}
    | {"lambda:GetFunctionConfiguration", "lambda:UpdateFunctionConfiguration"},
    "perch-roll-back": LOGS
    | DEAD_LETTERS
    | {f"dynamodb:{verb}" for verb in ("GetItem", "Query", "PutItem", "UpdateItem")}
    | {"lambda:GetAlias", "lambda:UpdateAlias", "events:PutEvents"},
    "perch-replay-requests": LOGS
    | DEAD_LETTERS
    | {"dynamodb:GetItem", "dynamodb:PutItem", "lambda:InvokeFunction", "logs:FilterLogEvents"},
    "perch-check-health": LOGS | DEAD_LETTERS | {"dynamodb:GetItem", "dynamodb:PutItem", "lambda:InvokeFunction"},
}


def statements(synthesized: Synthesized, function: str) -> list[dict[str, Any]]:
    """Return all that the role of a function says, managed policies excluded because none is attached."""
    role_id = synthesized.function(function)["Role"]["Fn::GetAtt"][0]
    assert "ManagedPolicyArns" not in synthesized.of_type("AWS::IAM::Role")[role_id]["Properties"]
    return [
        statement
        for policy in synthesized.properties("AWS::IAM::Policy")
        if {"Ref": role_id} in policy["Roles"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    """Return a policy's value as the list it may be short for."""
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("function", sorted(MAY))
def test_a_role_allows_what_its_function_calls(synthesized: Synthesized, function: str) -> None:
    """The actions of each role are exactly those listed above."""
    allowed = {action for s in statements(synthesized, function) for action in listed(s["Action"])}

    assert allowed == MAY[function]


@pytest.mark.parametrize("function", sorted(MAY))
def test_no_role_has_a_star_that_could_be_spared(synthesized: Synthesized, function: str) -> None:
    """No action has a `*`, and only actions that AWS cannot narrow are allowed on `*`."""
    for statement in statements(synthesized, function):
        assert statement["Effect"] == "Allow"
        assert not [action for action in listed(statement["Action"]) if "*" in action]
        if "*" in listed(statement["Resource"]):
            assert set(listed(statement["Action"])) <= EVERYWHERE


def test_functions_touch_only_the_predictors(synthesized: Synthesized) -> None:
    """Nobody may invoke or change a function that is not a declared endpoint's."""
    predictors = {f":function:perch-{endpoint}{of}" for endpoint in ("digits", "digits-torch") for of in ("", ":*")}
    for function in ("perch-drive-rollouts", "perch-roll-back", "perch-check-health", "perch-replay-requests"):
        for statement in statements(synthesized, function):
            if any(action.startswith("lambda:") for action in listed(statement["Action"])):
                arns = {arn["Fn::Join"][1][-1] for arn in listed(statement["Resource"])}
                assert arns <= predictors


def test_replays_read_the_logs_of_predictors_only(synthesized: Synthesized) -> None:
    """What clients sent stands in the predictors' logs; no other group is read."""
    (read,) = [
        s for s in statements(synthesized, "perch-replay-requests") if "logs:FilterLogEvents" in listed(s["Action"])
    ]

    assert {arn["Fn::Join"][1][-1] for arn in listed(read["Resource"])} == {
        f":log-group:/aws/lambda/perch-{endpoint}:*" for endpoint in ("digits", "digits-torch")
    }


WRITES = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"}
MAY_WRITE = {
    "perch-register-model": {"MODEL#*", "REJECTED", "IDEMPOTENCY#register"},
    "perch-drive-rollouts": {"ENDPOINT#*", "EXPERIMENT#*"},
    "perch-record-rewards": {"EXPERIMENT#*"},
    "perch-roll-back": {"ENDPOINT#*"},
    "perch-replay-requests": {"REPLAY#*"},
    "perch-check-health": {"HEALTH#*"},
}


@pytest.mark.parametrize("function", sorted(MAY_WRITE))
def test_a_function_writes_its_own_items_only(synthesized: Synthesized, function: str) -> None:
    """What parses uploads cannot move an endpoint, and what moves endpoints cannot change a model version (law 1)."""
    writing = [s for s in statements(synthesized, function) if WRITES & set(listed(s["Action"]))]
    keys: set[str] = set()
    for statement in writing:
        assert set(listed(statement["Action"])) <= WRITES
        assert list(statement["Condition"]) == ["ForAllValues:StringLike"]
        keys.update(listed(statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]))

    assert keys == MAY_WRITE[function]


@pytest.mark.parametrize("function", sorted(MAY_WRITE))
def test_a_function_speaks_in_its_own_name_only(synthesized: Synthesized, function: str) -> None:
    """No function can put an event on the bus that looks as if S3 or CloudWatch had sent it."""
    for statement in statements(synthesized, function):
        if "events:PutEvents" in listed(statement["Action"]):
            assert statement["Condition"] == {"ForAllValues:StringEquals": {"events:source": ["perch"]}}


def test_what_answers_rewards_reads_endpoints_only(synthesized: Synthesized) -> None:
    """Clients reach it, so it sees which experiment runs, and and no model."""
    for statement in statements(synthesized, "perch-record-rewards"):
        if "dynamodb:GetItem" in listed(statement["Action"]):
            assert statement["Condition"]["ForAllValues:StringLike"] == {"dynamodb:LeadingKeys": ["ENDPOINT#*"]}


def test_predictors_read_models_only(synthesized: Synthesized) -> None:
    """A predictor reads objects under models/ and nothing else."""
    for function in ("perch-digits", "perch-digits-torch"):
        (read,) = [s for s in statements(synthesized, function) if "s3:GetObject" in listed(s["Action"])]

        assert json.dumps(read["Resource"]).endswith('/models/*"]]}')


def test_predictors_cannot_read_what_is_quarantined(synthesized: Synthesized) -> None:
    """The condition is a negated one, which IAM also holds true where there is no such tag: the usual case."""
    for function in ("perch-digits", "perch-digits-torch"):
        reading = [s for s in statements(synthesized, function) if any("s3:" in a for a in listed(s["Action"]))]

        assert [s["Condition"] for s in reading] == [
            {"StringNotEquals": {"s3:ExistingObjectTag/perch": ["quarantined"]}}
        ]
