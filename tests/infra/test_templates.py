"""What the templates promise: the contract's names, what is kept, what wakes what, and how failures are kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perch.local.metrics import math as metric_math
from perch.local.metrics import math_functions
from perch.local.metrics.math_values import Window
from tests.infra.conftest import ROOT, Synthesized, declared, findings

# What the local cloud can deploy. There is no custom resource among them: deploying runs none of our code.
DEPLOYABLE = {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
}
PREDICTORS = {"perch-digits", "perch-digits-torch"}
SYNCHRONOUS = {"perch-describe-api", "perch-record-rewards"}
ASYNCHRONOUS = {
    "perch-register-model",
    "perch-drive-rollouts",
    "perch-roll-back",
    "perch-check-health",
    "perch-replay-requests",
}


def test_cdk_nag_finds_nothing(synthesized: Synthesized) -> None:
    """The AwsSolutions pack passes; what does not fit is acknowledged beside its construct, with a reason."""
    assert synthesized.findings == []


def test_cdk_nag_would_find_something(tmp_path: Path) -> None:
    """The check above can fail: a plain bucket is found wanting."""
    from aws_cdk import App, Stack, Validations
    from aws_cdk import aws_s3 as s3
    from cdk_nag import AwsSolutionsChecks

    app = App(outdir=str(tmp_path))
    s3.Bucket(Stack(app, "Plain"), "Bucket")
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()

    assert any(finding.startswith("AwsSolutions-S10") for finding in findings(tmp_path))


def test_only_deployable_types_are_used(synthesized: Synthesized) -> None:
    """The same template goes to AWS and to the local cloud, so it keeps to what both can deploy."""
    used = {r["Type"] for t in synthesized.templates.values() for r in t["Resources"].values()}

    assert used <= DEPLOYABLE


def test_outputs_are_those_of_the_contract(synthesized: Synthesized) -> None:
    """People and the `perch` command find a deployment by these names."""
    expected = {
        "store": {"StoreBucket", "RegistryTable"},
        "serving": {"ApiUrl"},
        "delivery": {"DeadLetterQueueUrl"},
        "observability": {"AlertsTopic", "DashboardName"},
    }
    for stack, names in expected.items():
        outputs = synthesized.templates[stack]["Outputs"]

        assert {name for name in outputs if not name.startswith("ExportsOutput")} == names


def test_functions_have_their_names_and_their_runtime(synthesized: Synthesized) -> None:
    """The driver finds functions by name; all run on arm64, the zip ones on python3.13."""
    functions = synthesized.properties("AWS::Lambda::Function")

    assert {f["FunctionName"] for f in functions} == PREDICTORS | ASYNCHRONOUS | SYNCHRONOUS
    assert all(f["Architectures"] == ["arm64"] for f in functions)
    assert all(f["Runtime"] == "python3.13" for f in functions if f.get("PackageType") != "Image")
    assert synthesized.function("perch-digits-torch")["PackageType"] == "Image"
    assert "Runtime" not in synthesized.function("perch-digits-torch")


def test_functions_have_the_environment_of_the_contract(synthesized: Synthesized) -> None:
    """Predictors know their endpoint and the store, and no pointer: that is the driver's to set."""
    for name in PREDICTORS:
        environment = synthesized.function(name)["Environment"]["Variables"]
        assert set(environment) == {"PERCH_ENDPOINT", "PERCH_STORE"}
        assert f"perch-{environment['PERCH_ENDPOINT']}" == name
    common = {
        "PERCH_TABLE",
        "PERCH_STORE",
        "POWERTOOLS_SERVICE_NAME",
        "POWERTOOLS_METRICS_NAMESPACE",
    }
    for name in ASYNCHRONOUS:
        environment = synthesized.function(name)["Environment"]["Variables"]
        more = {"PERCH_ROLL_BACK_ARN"} if name == "perch-drive-rollouts" else set()
        assert set(environment) == common | more
        assert environment["POWERTOOLS_METRICS_NAMESPACE"] == "Perch"


def test_the_store_is_retained_versioned_private_and_tells_the_bus(synthesized: Synthesized) -> None:
    """Models outlive their stack; nobody reads them in the clear or without being allowed to."""
    (bucket,) = synthesized.of_type("AWS::S3::Bucket").values()
    properties = bucket["Properties"]

    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert all(properties["PublicAccessBlockConfiguration"].values())
    assert "BucketEncryption" in properties
    assert "NoncurrentVersionExpiration" not in json.dumps(properties["LifecycleConfiguration"])
    assert _denies_plain_http(synthesized.properties("AWS::S3::BucketPolicy"))


def test_the_registry_is_retained_and_recoverable(synthesized: Synthesized) -> None:
    """The table survives its stack, and can be taken back to any second of the last weeks."""
    (table,) = synthesized.of_type("AWS::DynamoDB::Table").values()
    properties = table["Properties"]

    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert [(k["AttributeName"], k["KeyType"]) for k in properties["KeySchema"]] == [("pk", "HASH"), ("sk", "RANGE")]


def test_queue_and_topic_are_encrypted_and_refuse_plain_http(synthesized: Synthesized) -> None:
    """What was given up and what is announced is protected like what it tells of."""
    (queue,) = synthesized.properties("AWS::SQS::Queue")
    (topic,) = synthesized.properties("AWS::SNS::Topic")

    assert queue["SqsManagedSseEnabled"] is True
    assert "KmsMasterKeyId" in topic
    assert _denies_plain_http(synthesized.properties("AWS::SQS::QueuePolicy"))
    assert _denies_plain_http(synthesized.properties("AWS::SNS::TopicPolicy"))


def _denies_plain_http(policies: list[dict[str, Any]]) -> bool:
    return any(
        statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
    )


def test_each_alias_starts_at_a_placeholder_that_is_kept(synthesized: Synthesized) -> None:
    """One version and one alias a predictor; the version is retained, since the alias may come back to it."""
    functions = synthesized.of_type("AWS::Lambda::Function", "serving")
    versions = synthesized.of_type("AWS::Lambda::Version")
    aliases = synthesized.of_type("AWS::Lambda::Alias")

    assert len(versions) == len(aliases) == len(PREDICTORS)
    for alias in aliases.values():
        properties = alias["Properties"]
        version_id, attribute = properties["FunctionVersion"]["Fn::GetAtt"]
        function = functions[properties["FunctionName"]["Ref"]]
        assert function["Properties"]["FunctionName"] in PREDICTORS
        assert properties["Name"] == "live"
        assert attribute == "Version"
        assert versions[version_id]["Properties"]["FunctionName"] == properties["FunctionName"]
        assert versions[version_id]["DeletionPolicy"] == "Retain"
        assert "RoutingConfig" not in properties


def test_the_api_has_the_routes_of_the_contract(synthesized: Synthesized) -> None:
    """Literal routes for each endpoint lead to its alias; everything else to the function that describes the API."""
    routes = {r["RouteKey"]: r for r in synthesized.properties("AWS::ApiGatewayV2::Route")}
    integrations = synthesized.of_type("AWS::ApiGatewayV2::Integration")
    aliases = synthesized.of_type("AWS::Lambda::Alias")

    assert set(routes) == {
        *(
            route.format(endpoint)
            for endpoint in ("digits", "digits-torch")
            for route in (
                "POST /models/{}/predict",
                "GET /models/{}",
                "POST /models/{}/invocations",
                "GET /v2/models/{}",
                "ANY /v2/models/{}/{{proxy+}}",
            )
        ),
        "POST /experiments/{endpoint}/rewards",
        "GET /models",
        "GET /v2",
        "ANY /v2/{proxy+}",
        "$default",
    }
    for key, route in routes.items():
        assert route["AuthorizationType"] == "AWS_IAM"
        integration = integrations[route["Target"]["Fn::Join"][1][1]["Ref"]]["Properties"]
        assert integration["PayloadFormatVersion"] == "2.0"
        to_alias = integration["IntegrationUri"].get("Ref") in aliases
        assert to_alias == ("/models/" in key)


def test_the_api_may_call_what_its_routes_lead_to(synthesized: Synthesized) -> None:
    """Every route has a permission on the alias it leads to, for that method and path."""
    aliases = synthesized.of_type("AWS::Lambda::Alias")
    granted = {
        json.dumps(p["SourceArn"]).split("/*/", 1)[1].rstrip('"]}'): p["FunctionName"]
        for p in synthesized.properties("AWS::Lambda::Permission")
        if p["Principal"] == "apigateway.amazonaws.com"
    }

    assert set(granted) == {
        *(
            f"{allowed}{path.format(endpoint)}"
            for endpoint in ("digits", "digits-torch")
            for allowed, path in (
                ("POST", "/models/{}/predict"),
                ("GET", "/models/{}"),
                ("POST", "/models/{}/invocations"),
                ("GET", "/v2/models/{}"),
                ("*", "/v2/models/{}/*"),
            )
        ),
        "POST/experiments/*/rewards",
        "*",
    }
    assert all(function["Ref"] in aliases for route, function in granted.items() if "/models/" in route)


def test_every_rule_has_a_target_that_it_may_call_and_a_dead_letter_queue(synthesized: Synthesized) -> None:
    """A rule without permission fails silently; so each function target has one that names the rule."""
    permitted = {
        (p["FunctionName"]["Fn::GetAtt"][0], p["SourceArn"]["Fn::GetAtt"][0])
        for p in synthesized.properties("AWS::Lambda::Permission")
        if p["Principal"] == "events.amazonaws.com"
    }
    rules = synthesized.of_type("AWS::Events::Rule", "delivery")

    assert rules
    for rule_id, rule in rules.items():
        (target,) = rule["Properties"]["Targets"]
        assert (target["Arn"]["Fn::GetAtt"][0], rule_id) in permitted
        assert "DeadLetterConfig" in target


def test_rules_wake_what_the_contract_says(synthesized: Synthesized) -> None:
    """Uploads register, registrations and ticks drive, alarms roll back, schedules check health."""
    functions = synthesized.of_type("AWS::Lambda::Function")
    woken: dict[str, list[dict[str, Any]]] = {}
    for rule in synthesized.properties("AWS::Events::Rule", "delivery"):
        (target,) = rule["Targets"]
        name = functions[target["Arn"]["Fn::GetAtt"][0]]["Properties"]["FunctionName"]
        woken.setdefault(name, []).append(rule)

    (uploads,) = woken["perch-register-model"]
    assert uploads["EventPattern"]["source"] == ["aws.s3"]
    assert uploads["EventPattern"]["detail-type"] == ["Object Created"]
    assert set(uploads["EventPattern"]["detail"]) == {
        "bucket"
    }  # no prefix: keys outside the layout are refused in words
    (alarms,) = woken["perch-roll-back"]
    assert alarms["EventPattern"]["detail"] == {
        "alarmName": [{"prefix": "perch/"}],
        "state": {"value": ["ALARM"]},
    }
    schedules = [r["ScheduleExpression"] for r in woken["perch-drive-rollouts"] if "ScheduleExpression" in r]
    patterns = [r["EventPattern"] for r in woken["perch-drive-rollouts"] if "EventPattern" in r]
    assert schedules == ["rate(1 minute)"]
    assert {"source": ["perch"], "detail-type": ["ModelVersionRegistered"]} in patterns
    assert {"source": ["perch.hooks"], "detail-type": ["GateAnswered"]} in patterns
    assert len(patterns) == 2
    for rule in woken["perch-drive-rollouts"]:
        if "EventPattern" in rule:  # whoever puts an event says its time; when it came is EventBridge's own word
            template = rule["Targets"][0]["InputTransformer"]["InputTemplate"]
            assert '"time":"<aws.events.event.ingestion-time>"' in template
            assert '"source":<source>' in template
    health = {r["ScheduleExpression"]: r["Targets"][0]["InputTransformer"] for r in woken["perch-check-health"]}
    assert set(health) == {"rate(5 minutes)", "rate(10 minutes)"}
    for transformer in health.values():
        assert transformer["InputPathsMap"] == {"time": "$.time"}
        assert '"time":<time>' in transformer["InputTemplate"]
        assert '"endpoint":"digits' in transformer["InputTemplate"]


@pytest.mark.parametrize(("weight", "paired"), [(0.0, 0), (0.5, 50), (0.5, 0)])
def test_replays_are_woken_only_where_a_rollout_may_ask_for_them(tmp_path: Path, weight: float, paired: int) -> None:
    """A schedule that wakes a function each minute for nothing is billed all the same."""
    from aws_cdk import App

    from cdk import service
    from cdk.rollout_settings import Step
    from cdk.settings import load

    declared = load(ROOT / "perch.toml")
    first, *others = declared.endpoints
    steps = (Step(weight=weight, hold_s=3600), Step(weight=0.6, hold_s=3600))
    first = replace(first, rollout=replace(first.rollout, steps=steps, paired=paired))
    app = App(context=dict(service.CONTEXT), analytics_reporting=False, outdir=str(tmp_path))
    service.assemble(app, replace(declared, endpoints=(first, *others)), root=ROOT)
    app.synth()
    template = json.loads((tmp_path / "perch-delivery.template.json").read_text())["Resources"]
    rules = [r["Properties"] for r in template.values() if r["Type"] == "AWS::Events::Rule"]
    woken = [r["Targets"][0]["Arn"]["Fn::GetAtt"][0] for r in rules if r.get("ScheduleExpression") == "rate(1 minute)"]
    names = [template[function]["Properties"]["FunctionName"] for function in woken]

    assert names == ["perch-drive-rollouts"] + ["perch-replay-requests"] * (weight == 0 or paired > 0)


def test_every_asynchronous_function_keeps_what_it_failed_on(synthesized: Synthesized) -> None:
    """Two retries, then the record of the failure goes to the dead-letter queue."""
    functions = synthesized.of_type("AWS::Lambda::Function")
    (queue,) = synthesized.of_type("AWS::SQS::Queue")
    configured = {}
    for config in synthesized.properties("AWS::Lambda::EventInvokeConfig"):
        name = functions[config["FunctionName"]["Ref"]]["Properties"]["FunctionName"]
        configured[name] = config

    assert set(configured) == ASYNCHRONOUS
    for config in configured.values():
        assert config["Qualifier"] == "$LATEST"
        assert config["MaximumRetryAttempts"] == 2
        assert config["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": [queue, "Arn"]}


def test_endpoint_alarms_watch_the_right_series_and_roll_back_themselves(synthesized: Synthesized) -> None:
    """Lambda's metrics by FunctionName and the alias as Resource, Perch's by Endpoint; alarms call the roll-back."""
    alarms = {a["AlarmName"]: a for a in synthesized.properties("AWS::CloudWatch::Alarm")}
    for endpoint in ("digits", "digits-torch"):
        failures = alarms[f"perch/{endpoint}/failures"]
        series = {
            (q["MetricStat"]["Metric"]["Namespace"], q["MetricStat"]["Metric"]["MetricName"]): {
                d["Name"]: d["Value"] for d in q["MetricStat"]["Metric"]["Dimensions"]
            }
            for q in failures["Metrics"]
            if "MetricStat" in q
        }
        live = {"FunctionName": f"perch-{endpoint}", "Resource": f"perch-{endpoint}:live"}
        assert series == {
            ("AWS/Lambda", "Invocations"): live,
            ("AWS/Lambda", "Errors"): live,
            ("Perch", "Failures"): {"Endpoint": endpoint},
        }
        assert [q["Id"] for q in failures["Metrics"] if q.get("ReturnData") is not False] == ["percent"]
        for role in ("stable", "candidate"):
            probes = alarms[f"perch/{endpoint}/probes-{role}"]
            assert {d["Name"]: d["Value"] for d in probes["Dimensions"]} == {"Endpoint": endpoint, "Role": role}
            assert (probes["Namespace"], probes["MetricName"]) == ("Perch", "ProbeFailures")
        for name in ("failures", "probes-stable", "probes-candidate"):
            alarm = alarms[f"perch/{endpoint}/{name}"]
            assert alarm["TreatMissingData"] == "notBreaching"
            assert len(alarm["AlarmActions"]) == 2
            assert "RollBack" in json.dumps(alarm["AlarmActions"])


@pytest.mark.parametrize("fill", ["fills a series without points", "leaves a series without points empty"])
@pytest.mark.parametrize(("requests", "least"), [(20, 12), (60, 17), (100, 22), (300, 40), (6000, 392)])
def test_an_endpoint_within_its_level_sets_its_alarm_off_in_less_than_one_week_in_a_hundred(
    synthesized: Synthesized, monkeypatch: pytest.MonkeyPatch, requests: int, least: int, fill: str
) -> None:
    """From how many failures a minute counts, and how improbable even one such minute is at the limit itself."""
    real = math_functions.fill
    if fill.startswith("leaves"):
        monkeypatch.setattr(math_functions, "fill", lambda env, source, filler: source and real(env, source, filler))
    alarms = synthesized.properties("AWS::CloudWatch::Alarm")
    (alarm,) = [a for a in alarms if a["AlarmName"] == "perch/digits/failures"]
    sums, percent = (metric_math.parse(q["Expression"]) for q in alarm["Metrics"] if "Expression" in q)
    window, limit = Window(0, 60, 60), alarm["Threshold"] / 100

    def breaches(failures: int) -> bool:
        known: dict[str, Any] = {"invocations": {0: requests}, "crashes": {}, "failures": {0: failures}}
        value = percent.evaluate(known | {"failed": sums.evaluate(known, window)}, window)
        assert isinstance(value, dict)
        return bool(value[0] > alarm["Threshold"])

    logs = (
        math.log(math.comb(requests, k)) + k * math.log(limit) + (requests - k) * math.log1p(-limit)
        for k in range(least, requests + 1)
    )
    a_minute = math.fsum(math.exp(log) for log in logs)

    assert (breaches(least - 1), breaches(least), breaches(requests)) == (False, True, True)
    assert limit == 0.05
    assert -math.expm1(10_080 * math.log1p(-a_minute)) < 0.01


def test_control_alarms_wake_people_only(synthesized: Synthesized) -> None:
    """Their names lack the prefix that wakes the roll-back, and silence of the driver is an alarm."""
    alarms = {a["AlarmName"]: a for a in synthesized.properties("AWS::CloudWatch::Alarm") if "/" not in a["AlarmName"]}

    assert set(alarms) == {"perch-dead-letters", "perch-driver-errors", "perch-driver-silent"}
    assert alarms["perch-driver-silent"]["TreatMissingData"] == "breaching"
    assert all("RollBack" not in json.dumps(a["AlarmActions"]) for a in alarms.values())


def test_alarms_may_call_the_roll_back_and_only_ours(synthesized: Synthesized) -> None:
    """One permission covers the alarms of the template and those that the driver makes for a rollout."""
    (permission,) = [
        p
        for p in synthesized.properties("AWS::Lambda::Permission")
        if p["Principal"] == "lambda.alarms.cloudwatch.amazonaws.com"
    ]

    assert "RollBack" in json.dumps(permission["FunctionName"])
    assert json.dumps(permission["SourceArn"]).endswith(':alarm:perch/*"]]}')
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_warnings_reach_the_topic(synthesized: Synthesized) -> None:
    """Perch's events of severity warning and critical go to the topic, which lets the bus and the alarms publish."""
    (rule,) = synthesized.properties("AWS::Events::Rule", "observability")
    (policy,) = synthesized.properties("AWS::SNS::TopicPolicy")

    assert rule["EventPattern"] == {"source": ["perch"], "detail": {"severity": ["warning", "critical"]}}
    publishers = {s["Principal"]["Service"] for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"}
    assert publishers == {"events.amazonaws.com", "cloudwatch.amazonaws.com"}


def test_every_log_group_forgets(synthesized: Synthesized) -> None:
    """Each function has a log group of its own with a retention, and so have the API's access logs."""
    groups = {g["LogGroupName"]: g["RetentionInDays"] for g in synthesized.properties("AWS::Logs::LogGroup")}

    assert {f"/aws/lambda/{n}" for n in PREDICTORS | ASYNCHRONOUS | SYNCHRONOUS} < set(groups)
    assert set(groups.values()) == {30}


def test_the_dashboard_is_valid_json_with_a_row_for_each_endpoint(synthesized: Synthesized) -> None:
    """Requests and failures are searched by revision; alarms show their state."""
    (dashboard,) = synthesized.properties("AWS::CloudWatch::Dashboard")
    body = _joined(dashboard["DashboardBody"])
    widgets = json.loads(body)["widgets"]
    titles = [w["properties"].get("title", "") for w in widgets]

    for endpoint in ("digits", "digits-torch"):
        assert f"{endpoint}: requests by revision" in titles
    searched = json.dumps(widgets)
    assert "SEARCH('{Perch,Endpoint,Revision}" in searched
    assert any(w["type"] == "alarm" for w in widgets)


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return str(value["Ref"])
    return "".join(_joined(part) for part in value["Fn::Join"][1])


@pytest.mark.parametrize("stack", ["store", "serving", "delivery", "observability"])
def test_templates_fit_cloudformation(synthesized: Synthesized, stack: str) -> None:
    """At most 500 resources and 1 MB a template."""
    template = synthesized.templates[stack]

    assert len(template["Resources"]) <= 500
    assert len(json.dumps(template)) < 1_000_000


@pytest.mark.parametrize(("largest", "memory"), [(1, 1_024), (200, 1_408), (500, 2_624)])
def test_registration_has_the_memory_for_the_largest_artifact(tmp_path: Path, largest: int, memory: int) -> None:
    """What may be uploaded can be inspected: at most 4.1 times its size was measured."""
    small = '[endpoints.small]\nruntime = "onnx"\nmax_artifact_mb = 1\n'
    large = f'[endpoints.large]\nruntime = "onnx"\nmemory_mb = 2048\nmax_artifact_mb = {largest}\n'
    found = declared(tmp_path, small + large)

    assert found.function("perch-register-model")["MemorySize"] == memory
