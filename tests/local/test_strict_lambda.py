"""The strict Lambda API: revision ids, versions, states and aliases as AWS documents them."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from random import Random

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from perch.local import strict
from perch.local.ports import AsyncSettings, Invocation, Refused


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        """Return the time."""
        return self.time

    def hold(self):
        """Nothing passes by itself."""
        return nullcontext()

    def step(self, seconds):
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class Echo:
    """An invoker that remembers what it was asked and answers with the payload."""

    def __init__(self):
        self.seen = []
        self.refuse = None
        self.error = None

    def invoke(self, function, payload, *, qualifier=None):
        """Answer with the payload."""
        if self.refuse:
            raise self.refuse
        self.seen.append((function, qualifier, payload))
        target = strict.MotoFunctions().resolve(function, qualifier)
        return Invocation(
            request_id="r-1",
            payload=payload,
            error=self.error,
            executed_version=target.function.version,
            duration_ms=1.0,
            cold=False,
            log_tail="START\nEND\n",
        )

    def enqueue(self, function, payload, *, qualifier=None):
        """Remember the event."""
        self.seen.append((function, qualifier, payload))
        return "r-2"


def code(text="def handler(event, context): return event"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), text)
    return buffer.getvalue()


@pytest.fixture
def config(tmp_path):
    """Strict settings of one test; moto is as it was afterwards."""
    config = strict.StrictSettings(random=Random(7), cache=tmp_path / "code")  # noqa: S311
    with mock_aws():
        yield strict.install(config)
    strict.uninstall()


@pytest.fixture
def api(config, monkeypatch):
    """A Lambda client with one function `f`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    role = boto3.client("iam", "us-east-1").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    # The client would refuse some bad values itself; here the server has to.
    client = boto3.client("lambda", "us-east-1", config=Config(parameter_validation=False))
    client.role = role
    client.create_function(
        FunctionName="f",
        Role=role,
        Runtime="python3.13",
        Handler="handler.handler",
        Code={"ZipFile": code()},
        Environment={"Variables": {"A": "1"}},
        MemorySize=256,
        Timeout=7,
    )
    return client


def look(api, **which):
    answer = api.get_function_configuration(FunctionName="f", **which)
    del answer["ResponseMetadata"]
    return answer


def change(api, value):
    api.update_function_configuration(FunctionName="f", Environment={"Variables": {"A": value}})
    return api.publish_version(FunctionName="f")["Version"]


@contextmanager
def refused(code_, status, message=""):
    with pytest.raises(ClientError) as info:
        yield
    answer = info.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code_, status)
    assert message in answer["Error"]["Message"]


# --- revision ids ----------------------------------------------------------------------------------------------------


def test_a_stale_revision_id_stops_every_change(api):
    """A caller that read before somebody else wrote is refused with 412, and nothing changes."""
    stale = api.get_function_configuration(FunctionName="f")["RevisionId"]
    api.update_function_configuration(FunctionName="f", Description="new")
    fresh = look(api)

    assert fresh["RevisionId"] != stale
    with refused("PreconditionFailedException", 412, "does not match the latest Revision Id"):
        api.update_function_configuration(FunctionName="f", Description="x", RevisionId=stale)
    with refused("PreconditionFailedException", 412):
        api.update_function_code(FunctionName="f", ZipFile=code("x = 1"), RevisionId=stale)
    with refused("PreconditionFailedException", 412):
        api.publish_version(FunctionName="f", RevisionId=stale)
    assert look(api) == fresh
    assert api.publish_version(FunctionName="f", RevisionId=fresh["RevisionId"])["Version"] == "1"


def test_every_answer_carries_a_revision_id_and_looking_does_not_rotate_it(api):
    """Get, Publish, Update and the aliases all give it; two looks give the same."""
    seen = {api.get_function(FunctionName="f")["Configuration"]["RevisionId"] for _ in range(3)}
    version = api.publish_version(FunctionName="f")
    alias = api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    updated = api.update_alias(FunctionName="f", Name="live", Description="d")

    assert len(seen) == 1
    assert version["RevisionId"]
    assert alias["RevisionId"] != updated["RevisionId"]
    assert api.get_alias(FunctionName="f", Name="live")["RevisionId"] == updated["RevisionId"]
    with refused("PreconditionFailedException", 412):
        api.update_alias(FunctionName="f", Name="live", Description="e", RevisionId=alias["RevisionId"])


def test_a_permission_needs_the_latest_revision_of_the_policy(api):
    """AddPermission with an older revision of the policy is refused, and so is an id that is taken."""
    permission = {
        "FunctionName": "f",
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
    }
    api.add_permission(**permission, StatementId="one")
    stale = api.get_policy(FunctionName="f")["RevisionId"]
    api.add_permission(**permission, StatementId="two", RevisionId=stale)

    with refused("PreconditionFailedException", 412):
        api.add_permission(**permission, StatementId="three", RevisionId=stale)
    with refused("ResourceConflictException", 409, "already exists"):
        api.add_permission(**permission, StatementId="two")


def test_an_alias_keeps_its_own_policy_when_it_moves(api):
    """A permission given on the alias is the alias's, whatever version it points to."""
    api.publish_version(FunctionName="f")
    change(api, "2")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    api.add_permission(
        FunctionName="f",
        Qualifier="live",
        StatementId="api",
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
    )
    api.update_alias(FunctionName="f", Name="live", FunctionVersion="2")

    policy = json.loads(api.get_policy(FunctionName="f", Qualifier="live")["Policy"])
    assert policy["Statement"][0]["Resource"].endswith(":function:f:live")
    with refused("ResourceNotFoundException", 404):
        api.get_policy(FunctionName="f")


# --- versions --------------------------------------------------------------------------------------------------------


def test_publishing_nothing_new_returns_the_last_version(api):
    """Without an update since, no version is made."""
    assert api.publish_version(FunctionName="f")["Version"] == "1"
    assert api.publish_version(FunctionName="f")["Version"] == "1"
    assert change(api, "2") == "2"
    assert api.publish_version(FunctionName="f")["Version"] == "2"


def test_publish_checks_the_hash_of_the_code(api):
    """A CodeSha256 that is not that of $LATEST is refused with 400."""
    with refused("InvalidParameterValueException", 400, "is different from current CodeSHA256 in $LATEST"):
        api.publish_version(FunctionName="f", CodeSha256="A" * 43 + "=")
    good = api.get_function_configuration(FunctionName="f")["CodeSha256"]
    assert api.publish_version(FunctionName="f", CodeSha256=good)["Version"] == "1"


def test_a_version_is_frozen(api):
    """Environment, memory, time limit and code of a version stay when $LATEST changes."""
    api.publish_version(FunctionName="f")
    before = look(api, Qualifier="1")
    api.update_function_configuration(
        FunctionName="f", Environment={"Variables": {"B": "2"}}, MemorySize=512, Timeout=9, Handler="other.handler"
    )
    api.update_function_code(FunctionName="f", ZipFile=code("changed = True"))
    target = strict.MotoFunctions().resolve("f", "1").function

    assert look(api, Qualifier="1") == before
    assert dict(target.environment) == {"A": "1"}
    assert (target.memory_mb, target.timeout_s, target.handler) == (256, 7.0, "handler.handler")
    assert "def handler" in (target.code / "handler.py").read_text()


def test_version_numbers_are_never_used_again(api):
    """Not after a version was deleted, and not after the function was."""
    change(api, "1")
    change(api, "2")
    api.delete_function(FunctionName="f", Qualifier="2")
    assert change(api, "3") == "3"

    api.delete_function(FunctionName="f")
    api.create_function(
        FunctionName="f", Role=api.role, Runtime="python3.13", Handler="h.h", Code={"ZipFile": code()}, Publish=True
    )
    assert [v["Version"] for v in api.list_versions_by_function(FunctionName="f")["Versions"]] == ["$LATEST", "4"]


def test_a_version_that_an_alias_points_to_cannot_be_deleted(api):
    """Neither the main version nor the one that gets a share."""
    change(api, "1")
    change(api, "2")
    change(api, "3")
    weights = {"AdditionalVersionWeights": {"2": 0.1}}
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1", RoutingConfig=weights)

    for version in ("1", "2"):
        with refused("ResourceConflictException", 409):
            api.delete_function(FunctionName="f", Qualifier=version)
    api.delete_function(FunctionName="f", Qualifier="3")


def test_an_environment_above_4_kb_is_refused(api):
    """As is a reserved name; nothing changes then."""
    with refused("InvalidParameterValueException", 400, "4KB"):
        api.update_function_configuration(FunctionName="f", Environment={"Variables": {"A": "x" * 4096}})
    with refused("InvalidParameterValueException", 400, "AWS_REGION"):
        api.update_function_configuration(FunctionName="f", Environment={"Variables": {"AWS_REGION": "mars"}})
    assert api.get_function_configuration(FunctionName="f")["Environment"]["Variables"] == {"A": "1"}


# --- states ----------------------------------------------------------------------------------------------------------


def test_functions_and_versions_become_active_after_a_while(api, config):
    """Pending and InProgress last for the settling time of the clock; a second change meanwhile is refused."""
    config.clock = clock = Clock()
    config.settle_s = 5.0
    answer = api.update_function_configuration(FunctionName="f", Environment={"Variables": {"A": "2"}})
    assert answer["LastUpdateStatus"] == "InProgress"
    with refused("ResourceConflictException", 409, "An update is in progress for resource"):
        api.update_function_configuration(FunctionName="f", Description="again")
    with refused("ResourceConflictException", 409):
        api.update_function_code(FunctionName="f", ZipFile=code("x = 2"))
    with refused("ResourceConflictException", 409):
        api.publish_version(FunctionName="f")

    clock.step(5)
    assert api.get_function_configuration(FunctionName="f")["LastUpdateStatus"] == "Successful"
    version = api.publish_version(FunctionName="f")
    assert (version["Version"], version["State"]) == ("1", "Pending")
    with pytest.raises(Refused) as info:
        strict.MotoFunctions().resolve("f", "1")
    assert (info.value.code, info.value.status) == ("ResourceConflictException", 409)

    clock.step(5)
    assert api.get_function_configuration(FunctionName="f", Qualifier="1")["State"] == "Active"
    assert strict.MotoFunctions().resolve("f", "1").function.version == "1"


def test_the_revision_id_rotates_once_more_when_an_update_settles(api, config):
    """So the id of the update's own answer cannot be chained: it has to be read again after the wait."""
    config.clock = clock = Clock()
    config.settle_s = 5.0
    chained = api.update_function_configuration(FunctionName="f", Description="d")["RevisionId"]
    clock.step(5)

    with refused("PreconditionFailedException", 412):
        api.publish_version(FunctionName="f", RevisionId=chained)


# --- aliases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "weights", "code_", "status"),
    [
        ("1", {"2": 1.7}, "ValidationException", 400),
        ("1", {"2": -0.1}, "ValidationException", 400),
        ("1", {"2": 0.1, "3": 0.1}, "InvalidParameterValueException", 400),
        ("1", {"1": 0.1}, "InvalidParameterValueException", 400),
        ("1", {"9": 0.1}, "ResourceNotFoundException", 404),
        ("9", {}, "ResourceNotFoundException", 404),
        ("$LATEST", {"1": 0.1}, "InvalidParameterValueException", 400),
        ("1", {"$LATEST": 0.1}, "ValidationException", 400),
        ("live", {}, "ResourceNotFoundException", 404),
    ],
)
def test_an_alias_refuses_what_aws_refuses(api, version, weights, code_, status):
    """Bad weights, too many, unknown or unfit versions: refused at creation and update, and the alias stays."""
    for value in "123":
        change(api, value)
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    before = api.get_alias(FunctionName="f", Name="live")
    asked = {"FunctionName": "f", "FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": weights}}

    with refused(code_, status):
        api.update_alias(Name="live", **asked)
    with refused(code_, status):
        api.create_alias(Name="other", **asked)
    after = api.get_alias(FunctionName="f", Name="live")
    assert after["RevisionId"] == before["RevisionId"]
    assert after["FunctionVersion"] == "1"


def test_updating_an_alias_leaves_its_routing_unless_told(api):
    """No RoutingConfig keeps the weights; an empty one clears them."""
    change(api, "1")
    change(api, "2")
    api.create_alias(
        FunctionName="f", Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}}
    )
    kept = api.update_alias(FunctionName="f", Name="live", Description="d")
    assert kept["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.25}}

    cleared = api.update_alias(FunctionName="f", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in cleared
    # With the weight still on version 2, pointing the alias itself to 2 is refused as AWS refuses it.
    api.update_alias(FunctionName="f", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}})
    with refused("InvalidParameterValueException", 400, "already included in routing configuration"):
        api.update_alias(FunctionName="f", Name="live", FunctionVersion="2")


def test_both_versions_of_a_weighted_alias_need_the_same_role_and_dead_letters(api):
    """A candidate with another role or dead-letter target cannot share an alias."""
    change(api, "1")
    role = boto3.client("iam", "us-east-1").create_role(RoleName="s", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    api.update_function_configuration(FunctionName="f", Role=role)
    api.publish_version(FunctionName="f")
    api.update_function_configuration(
        FunctionName="f", Role=api.role, DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:123456789012:q"}
    )
    api.publish_version(FunctionName="f")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")

    for version, words in (("2", "execution role"), ("3", "dead letter")):
        with refused("InvalidParameterValueException", 400, words):
            api.update_alias(FunctionName="f", Name="live", RoutingConfig={"AdditionalVersionWeights": {version: 0.1}})


@given(weight=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_the_share_of_requests_follows_the_weight(weight, seed):
    """Over 400 requests the share of the additional version lies within five standard deviations of its weight."""
    with mock_aws():
        strict.install(strict.StrictSettings(random=Random(seed)))  # noqa: S311
        try:
            role = boto3.client("iam", "us-east-1").create_role(RoleName="r", AssumeRolePolicyDocument="{}")
            client = boto3.client("lambda", "us-east-1")
            client.create_function(
                FunctionName="f",
                Role=role["Role"]["Arn"],
                Runtime="python3.13",
                Handler="h.h",
                Code={"ZipFile": code()},
                Publish=True,
            )
            change(client, "2")
            client.create_alias(
                FunctionName="f",
                Name="live",
                FunctionVersion="1",
                RoutingConfig={"AdditionalVersionWeights": {"2": weight}},
            )
            functions = strict.MotoFunctions()
            hits = sum(functions.resolve("f", "live").function.version == "2" for _ in range(400))
        finally:
            strict.uninstall()
    assert abs(hits - 400 * weight) <= 5 * (400 * weight * (1 - weight)) ** 0.5 + 1e-9


# --- resolving -------------------------------------------------------------------------------------------------------


def test_names_and_arns_with_and_without_qualifier_resolve(api):
    """All four ways of naming an alias lead to the same version, and the metrics' resource names the qualifier."""
    change(api, "1")
    arn = api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")["AliasArn"]
    functions = strict.MotoFunctions()

    for function, qualifier in ((arn, None), ("f:live", None), ("f", "live"), (arn.removesuffix(":live"), "live")):
        target = functions.resolve(function, qualifier)
        assert (target.function.version, target.resource, target.via_alias) == ("1", "f:live", True)
    assert functions.resolve("f").resource == "f"
    assert functions.resolve("f", "1").resource == "f:1"
    assert not functions.resolve("f", "1").via_alias
    for missing in (("g", None), ("f", "nope"), ("f", "9")):
        with pytest.raises(Refused) as info:
            functions.resolve(*missing)
        assert info.value.status == 404


def test_what_was_resolved_is_forgotten_when_anything_changes(api):
    """The cache of the resolver never outlives an alias, a version, the concurrency or the code."""
    functions = strict.MotoFunctions()
    change(api, "1")
    change(api, "2")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    assert functions.resolve("f", "live").function.version == "1"
    first = functions.resolve("f").function

    api.update_alias(FunctionName="f", Name="live", FunctionVersion="2")
    api.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=3)
    api.update_function_code(FunctionName="f", ZipFile=code("print('new')"))
    latest = functions.resolve("f").function

    assert functions.resolve("f", "live").function.version == "2"
    assert functions.resolve("f", "live").reserved == 3
    assert latest.fingerprint != first.fingerprint
    assert (latest.code / "handler.py").read_text() == "print('new')"
    api.delete_function_concurrency(FunctionName="f")
    assert functions.resolve("f").reserved is None


def test_layers_with_shared_libraries_are_left_off_the_path(api):
    """A pure layer is unpacked and put on the path; one built for Lambda's platform is not."""

    def layer(name, files):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for file in files:
                archive.writestr(file, "x = 1")
        return api.publish_layer_version(LayerName=name, Content={"ZipFile": buffer.getvalue()})["LayerVersionArn"]

    pure = layer("pure", ["python/pure/__init__.py"])
    built = layer("built", ["python/built/__init__.py", "python/built/core.cpython-313-aarch64-linux-gnu.so"])
    api.update_function_configuration(FunctionName="f", Layers=[pure, built])
    (path,) = strict.MotoFunctions().resolve("f").function.layers

    assert (path / "pure" / "__init__.py").read_text() == "x = 1"
    api.publish_version(FunctionName="f")
    api.delete_layer_version(LayerName="pure", VersionNumber=1)
    assert strict.MotoFunctions().resolve("f", "1").function.layers == (path,)


# --- invoking --------------------------------------------------------------------------------------------------------


def test_invoke_answers_with_the_version_the_error_and_the_log(api, config):
    """ExecutedVersion, FunctionError and, when asked for, the end of the log."""
    config.invoker = echo = Echo()
    change(api, "1")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    answer = api.invoke(FunctionName="f", Qualifier="live", Payload=b'{"a": 1}', LogType="Tail")

    assert answer["ExecutedVersion"] == "1"
    assert json.load(answer["Payload"]) == {"a": 1}
    assert base64.b64decode(answer["LogResult"]) == b"START\nEND\n"
    assert "FunctionError" not in answer
    assert echo.seen == [("f", "live", b'{"a": 1}')]
    echo.error = "Unhandled"
    again = api.invoke(FunctionName="f", Payload=b"{}")
    assert again["FunctionError"] == "Unhandled"
    assert "LogResult" not in again


def test_invocation_types_have_their_status_codes(api, config):
    """Event is accepted with 202 and queued, DryRun answers 204 and runs nothing."""
    config.invoker = echo = Echo()
    config.async_invoker = queue = Echo()

    assert api.invoke(FunctionName="f", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    assert api.invoke(FunctionName="f", InvocationType="DryRun")["StatusCode"] == 204
    assert queue.seen == [("f", None, b"{}")]
    assert echo.seen == []
    with refused("ResourceNotFoundException", 404):
        api.invoke(FunctionName="nope", InvocationType="DryRun")


def test_what_the_data_plane_refuses_is_an_error_of_the_api(api, config):
    """Throttling, a body that is no JSON, and a body that is too large keep AWS's codes."""
    config.invoker = echo = Echo()
    with refused("InvalidRequestContentException", 400):
        api.invoke(FunctionName="f", Payload=b"not json")
    with refused("RequestTooLargeException", 413):
        api.invoke(FunctionName="f", Payload=b'"' + b"x" * 6 * 1024 * 1024 + b'"')
    client = boto3.client("lambda", "us-east-1", config=Config(retries={"total_max_attempts": 1}))
    echo.refuse = Refused("TooManyRequestsException", "Rate Exceeded.", 429)
    with refused("TooManyRequestsException", 429):
        client.invoke(FunctionName="f")


def test_without_an_invoker_invoke_says_so(api):
    """The control plane alone explains what is missing."""
    client = boto3.client("lambda", "us-east-1", config=Config(retries={"total_max_attempts": 1}))
    with refused("ServiceException", 500, "No invoker is running here"):
        client.invoke(FunctionName="f")


def test_asynchronous_settings_belong_to_one_qualifier(api):
    """A config of the alias is not one of the function; Put replaces, Update merges, Delete removes."""
    change(api, "1")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    queue = "arn:aws:sqs:us-east-1:123456789012:failed"
    api.put_function_event_invoke_config(FunctionName="f", Qualifier="live", MaximumRetryAttempts=0)
    api.update_function_event_invoke_config(
        FunctionName="f", Qualifier="live", DestinationConfig={"OnFailure": {"Destination": queue}}
    )
    functions = strict.MotoFunctions()

    assert functions.async_settings("f", "live") == AsyncSettings(max_retries=0, on_failure_arn=queue)
    assert functions.async_settings("f") == AsyncSettings()
    assert len(api.list_function_event_invoke_configs(FunctionName="f")["FunctionEventInvokeConfigs"]) == 1
    api.put_function_event_invoke_config(FunctionName="f", Qualifier="live", MaximumEventAgeInSeconds=60)
    assert functions.async_settings("f", "live") == AsyncSettings(max_age_s=60.0)
    api.delete_function_event_invoke_config(FunctionName="f", Qualifier="live")
    with refused("ResourceNotFoundException", 404):
        api.get_function_event_invoke_config(FunctionName="f", Qualifier="live")
    with pytest.raises(Refused):
        functions.async_settings("nope")


def test_snap_start_and_logging_are_kept(api):
    """What moto drops is stored and reported; SnapStart is on for published versions only."""
    api.update_function_configuration(FunctionName="f", SnapStart={"ApplyOn": "PublishedVersions"})
    version = api.publish_version(FunctionName="f")

    assert version["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    latest = api.get_function_configuration(FunctionName="f")
    assert latest["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    assert latest["LoggingConfig"]["LogGroup"] == "/aws/lambda/f"


# --- installing ------------------------------------------------------------------------------------------------------


def test_uninstalling_puts_moto_back():
    """Every attribute that was replaced is what it was, and installing twice is installing once."""
    from moto.awslambda import models, responses
    from moto.cloudformation import models as stacks

    owners = (models.LambdaBackend, models.LambdaFunction, responses.LambdaResponse, stacks.CloudFormationBackend)
    before = [dict(vars(owner)) for owner in owners]
    strict.install()
    strict.install()
    assert [dict(vars(owner)) for owner in owners] != before
    strict.uninstall()
    assert [dict(vars(owner)) for owner in owners] == before
