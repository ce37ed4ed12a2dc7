"""The strict CloudFormation: stacks converge, fail aloud and roll back; the resource types keep their properties."""

from __future__ import annotations

import copy
import json

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from perch.local import strict

ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": []}}}
FUNCTION = {
    "Type": "AWS::Lambda::Function",
    "Properties": {
        "FunctionName": "f",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Architectures": ["arm64"],
        "SnapStart": {"ApplyOn": "PublishedVersions"},
        "MemorySize": 256,
        "Code": {"ZipFile": "x = 1"},
        "Environment": {"Variables": {"A": "1"}},
        "ReservedConcurrentExecutions": 4,
    },
}
VERSION = {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}}
ALIAS = {
    "Type": "AWS::Lambda::Alias",
    "Properties": {
        "FunctionName": {"Ref": "Function"},
        "Name": "live",
        "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
    },
}


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """Makes clients of a strict moto; moto is as it was afterwards."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    settings = strict.StrictSettings(cache=tmp_path / "code", api_url="http://localhost:9999")
    strict.install(settings)
    with mock_aws():
        yield lambda service: boto3.client(service, "us-east-1")
    strict.uninstall()


class Stack:
    """One stack `s` of a strict moto."""

    def __init__(self, aws, name="s"):
        self.api = aws("cloudformation")
        self.name = name

    def create(self, outputs=None, **resources):
        """Create the stack and return its status."""
        self.resources = resources
        self.api.create_stack(StackName=self.name, TemplateBody=self._body(outputs))
        return self.status()

    def update(self, outputs=None, **resources):
        """Update the stack and return its status."""
        self.resources = resources
        self.api.update_stack(StackName=self.name, TemplateBody=self._body(outputs))
        return self.status()

    def _body(self, outputs):
        return json.dumps({"Resources": self.resources, "Outputs": outputs or {}})

    def status(self):
        return self.api.describe_stacks(StackName=self.name)["Stacks"][0]["StackStatus"]

    def outputs(self):
        found = self.api.describe_stacks(StackName=self.name)["Stacks"][0].get("Outputs", [])
        return {output["OutputKey"]: output["OutputValue"] for output in found}

    def ids(self):
        resources = self.api.describe_stack_resources(StackName=self.name)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def reasons(self):
        events = self.api.describe_stack_events(StackName=self.name)["StackEvents"]
        return [event["ResourceStatusReason"] for event in events if event["ResourceStatus"].endswith("_FAILED")]


def changed(resource, **properties):
    resource = copy.deepcopy(resource)
    resource["Properties"] |= properties
    return resource


# --- functions, versions, aliases ------------------------------------------------------------------------------------


def test_a_function_keeps_every_property_of_its_template(aws):
    """Architecture, SnapStart and reserved concurrency, which moto drops, are there."""
    assert Stack(aws).create(Role=ROLE, Function=FUNCTION) == "CREATE_COMPLETE"
    function = aws("lambda").get_function(FunctionName="f")

    assert function["Configuration"]["Architectures"] == ["arm64"]
    assert function["Configuration"]["SnapStart"]["ApplyOn"] == "PublishedVersions"
    assert function["Concurrency"] == {"ReservedConcurrentExecutions": 4}
    assert strict.MotoFunctions().resolve("f").reserved == 4


def test_other_code_touches_latest_only_and_leaves_the_environment_of_the_api(aws):
    """A code-only change publishes nothing and does not take back what the API wrote into the environment."""
    stack, api = Stack(aws), aws("lambda")
    stack.create(Role=ROLE, Function=FUNCTION, Version=VERSION, Alias=ALIAS)
    api.update_function_configuration(FunctionName="f", Environment={"Variables": {"A": "1", "PERCH_POINTER": "{}"}})
    before = api.get_function_configuration(FunctionName="f", Qualifier="1")["CodeSha256"]
    function = changed(FUNCTION, Code={"ZipFile": "x = 2"})
    assert stack.update(Role=ROLE, Function=function, Version=VERSION, Alias=ALIAS) == "UPDATE_COMPLETE"

    latest = api.get_function_configuration(FunctionName="f")
    assert latest["Environment"]["Variables"] == {"A": "1", "PERCH_POINTER": "{}"}
    assert latest["CodeSha256"] != before
    assert api.get_function_configuration(FunctionName="f", Qualifier="1")["CodeSha256"] == before
    assert [v["Version"] for v in api.list_versions_by_function(FunctionName="f")["Versions"]] == ["$LATEST", "1"]


def test_an_environment_that_did_not_change_in_the_template_is_not_written_again(aws):
    """Other memory leaves it alone; another environment in the template replaces it."""
    stack, api = Stack(aws), aws("lambda")
    stack.create(Role=ROLE, Function=FUNCTION)
    api.update_function_configuration(FunctionName="f", Environment={"Variables": {"A": "api"}})
    stack.update(Role=ROLE, Function=changed(FUNCTION, MemorySize=512))
    kept = api.get_function_configuration(FunctionName="f")
    stack.update(Role=ROLE, Function=changed(FUNCTION, Environment={"Variables": {"A": "template"}}))

    assert (kept["MemorySize"], kept["Environment"]["Variables"]) == (512, {"A": "api"})
    assert api.get_function_configuration(FunctionName="f")["Environment"]["Variables"] == {"A": "template"}
    assert api.get_function_configuration(FunctionName="f")["MemorySize"] == 256


def test_weights_set_by_the_api_outlive_a_stack_update(aws):
    """The template writes the alias once; an update that does not change the alias leaves it to its writer."""
    stack, api = Stack(aws), aws("lambda")
    stack.create(Role=ROLE, Function=FUNCTION, Version=VERSION, Alias=ALIAS)
    api.update_function_configuration(FunctionName="f", Description="candidate")
    api.publish_version(FunctionName="f")
    routing = {"AdditionalVersionWeights": {"2": 0.1}}
    api.update_alias(FunctionName="f", Name="live", RoutingConfig=routing)
    described = changed(ALIAS, Description="the one that serves")
    stack.update(Role=ROLE, Function=changed(FUNCTION, Timeout=9), Version=VERSION, Alias=described)

    alias = api.get_alias(FunctionName="f", Name="live")
    assert alias["RoutingConfig"] == routing
    assert alias["Description"] == "the one that serves"


def test_a_replaced_layer_reaches_the_functions_that_refer_to_it(aws):
    """The text of the function's resource is the same, but what its Ref gives is not."""
    s3 = aws("s3")
    s3.create_bucket(Bucket="assets")
    for key in ("one", "two"):
        s3.put_object(Bucket="assets", Key=key, Body=key.encode())
    layer = {"Type": "AWS::Lambda::LayerVersion", "Properties": {"Content": {"S3Bucket": "assets", "S3Key": "one"}}}
    function = changed(FUNCTION, Layers=[{"Ref": "Layer"}])
    stack, api = Stack(aws), aws("lambda")
    stack.create(Role=ROLE, Function=function, Layer=layer)
    first = api.get_function_configuration(FunctionName="f")["Layers"][0]["Arn"]
    other = changed(layer, Content={"S3Bucket": "assets", "S3Key": "two"})
    assert stack.update(Role=ROLE, Function=function, Layer=other) == "UPDATE_COMPLETE"

    second = api.get_function_configuration(FunctionName="f")["Layers"][0]["Arn"]
    assert (first.rsplit(":", 1)[1], second.rsplit(":", 1)[1]) == ("1", "2")
    assert [v["Version"] for v in api.list_layer_versions(LayerName="Layer")["LayerVersions"]] == [2]


def test_functions_of_a_stack_are_active_however_slowly_they_settle(aws):
    """CloudFormation waits for each change before the next, so a Version after its Function never meets a 409."""
    from perch.local.strict.settings import current

    current().settle_s = 3600.0
    stack = Stack(aws)
    assert stack.create(Role=ROLE, Function=FUNCTION, Version=VERSION, Alias=ALIAS) == "CREATE_COMPLETE"
    assert strict.MotoFunctions().resolve("f", "live").function.version == "1"


# --- failing ---------------------------------------------------------------------------------------------------------


def test_an_unsupported_type_fails_the_stack_and_leaves_nothing(aws):
    """The reason is in the events, what was made before is gone, and the stack can be deleted."""
    stack = Stack(aws)
    status = stack.create(
        Table={"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}},
        Odd={"Type": "AWS::Odd::Thing", "Properties": {"Q": {"Ref": "Table"}}},
    )

    assert status == "ROLLBACK_COMPLETE"
    assert stack.reasons() == ["The local cloud does not support resources of type AWS::Odd::Thing."]
    assert "QueueUrls" not in aws("sqs").list_queues()
    stack.api.delete_stack(StackName="s")
    with pytest.raises(ClientError):
        stack.status()


def test_a_failed_update_goes_back_to_the_template_before(aws):
    """What the update had changed until it failed is changed back."""
    stack, api = Stack(aws), aws("lambda")
    stack.create(Role=ROLE, Function=FUNCTION)
    wrong = changed(ALIAS, FunctionVersion="7", Description={"Fn::GetAtt": ["Function", "Arn"]})
    status = stack.update(Role=ROLE, Function=changed(FUNCTION, MemorySize=512), Alias=wrong)

    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert "Function not found" in stack.reasons()[0]
    assert api.get_function_configuration(FunctionName="f")["MemorySize"] == 256
    assert stack.update(Role=ROLE, Function=changed(FUNCTION, MemorySize=1024)) == "UPDATE_COMPLETE"


def test_resources_that_left_the_template_are_deleted_last(aws):
    """Unless they are to be retained."""
    queue = {"Type": "AWS::SQS::Queue", "Properties": {}}
    stack = Stack(aws)
    stack.create(Keep={**queue, "DeletionPolicy": "Retain"}, Drop=queue, Stay=queue)
    urls = stack.ids()
    stack.update(Stay=queue)

    left = set(aws("sqs").list_queues()["QueueUrls"])
    assert left == {urls["Keep"], urls["Stay"]}
    assert set(stack.ids()) == {"Stay"}


def test_a_circle_of_references_is_refused(aws):
    """Before anything is made."""
    queue = {"Type": "AWS::SQS::Queue", "Properties": {}}
    with pytest.raises(ClientError, match="Circular dependency"):
        Stack(aws).create(A={**queue, "DependsOn": "B"}, B={**queue, "DependsOn": "A"})


def test_nothing_to_update_is_said(aws):
    """The same template and parameters again."""
    queue = {"Type": "AWS::SQS::Queue", "Properties": {}}
    stack = Stack(aws)
    stack.create(Q=queue)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stack.update(Q=queue)


def test_a_change_set_has_outputs_and_exports(aws):
    """The CDK's tool uses change sets only; what one stack exports another imports."""
    api = aws("cloudformation")

    def deploy(name, template, kind="CREATE"):
        change = api.create_change_set(
            StackName=name, ChangeSetName="c", ChangeSetType=kind, TemplateBody=json.dumps(template)
        )
        api.execute_change_set(ChangeSetName=change["Id"], StackName=name)
        api.delete_change_set(ChangeSetName=change["Id"], StackName=name)

    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}}
    url = {"Value": {"Ref": "Q"}, "Export": {"Name": "the-queue"}}
    deploy("giver", {"Resources": {"Q": queue}, "Outputs": {"Url": url}})
    policy = {"PolicyDocument": {"Statement": []}, "Queues": [{"Fn::ImportValue": "the-queue"}]}
    deploy("taker", {"Resources": {"P": {"Type": "AWS::SQS::QueuePolicy", "Properties": policy}}})

    assert Stack(aws, "giver").outputs()["Url"].endswith("/q")
    assert Stack(aws, "taker").status() == "CREATE_COMPLETE"


def test_change_sets_belong_to_their_stack(aws):
    """Two stacks have change sets of one name; each is described, executed and deleted by its own."""
    api = aws("cloudformation")
    for name in ("one", "two"):
        queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}}
        api.create_change_set(
            StackName=name,
            ChangeSetName="c",
            ChangeSetType="CREATE",
            TemplateBody=json.dumps({"Resources": {"Q": queue}}),
        )
    assert api.describe_change_set(ChangeSetName="c", StackName="one")["StackName"] == "one"
    api.execute_change_set(ChangeSetName="c", StackName="one")
    api.delete_change_set(ChangeSetName="c", StackName="two")
    api.delete_change_set(ChangeSetName="c", StackName="two")

    assert Stack(aws, "one").status() == "CREATE_COMPLETE"
    with pytest.raises(ClientError, match="does not exist") as info:
        api.describe_change_set(ChangeSetName="c", StackName="two")
    assert info.value.response["Error"]["Code"] == "ChangeSetNotFound"


def test_the_previous_value_of_a_parameter_is_the_one_that_was_given(aws):
    """An SSM parameter is looked up by its name in an update too, by change set and without."""
    aws("ssm").put_parameter(Name="/a/b", Type="String", Value="resolved")
    parameters = {
        "P": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/a/b"},
        "N": {"Type": "String", "Default": "n"},
    }
    api = aws("cloudformation")

    def template(text):
        queue = {"Type": "AWS::SQS::Queue", "Properties": {"Tags": [{"Key": text, "Value": {"Ref": "P"}}]}}
        output = {"P": {"Value": {"Fn::Join": ["-", [{"Ref": "P"}, {"Ref": "N"}]]}}}
        return json.dumps({"Parameters": parameters, "Resources": {"Q": queue}, "Outputs": output})

    previous = [{"ParameterKey": name, "UsePreviousValue": True} for name in parameters]
    given = [{"ParameterKey": "N", "ParameterValue": "m"}]
    api.create_stack(StackName="s", TemplateBody=template("one"), Parameters=given)
    change = {"StackName": "s", "TemplateBody": template("two"), "Parameters": previous}
    api.create_change_set(ChangeSetName="c", ChangeSetType="UPDATE", **change)
    api.execute_change_set(StackName="s", ChangeSetName="c")
    assert (Stack(aws).status(), Stack(aws).outputs()) == ("UPDATE_COMPLETE", {"P": "resolved-m"})
    api.update_stack(StackName="s", TemplateBody=template("three"), Parameters=previous)
    assert (Stack(aws).status(), Stack(aws).outputs()) == ("UPDATE_COMPLETE", {"P": "resolved-m"})


# --- the types -------------------------------------------------------------------------------------------------------


def test_an_http_api_is_served_by_the_local_gateway(aws):
    """ApiEndpoint is the gateway's URL, the routes lead to the functions, and their generation moves with a change."""
    uri = {"Fn::Join": ["", ["arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/", "${}", "/invocations"]]}
    uri["Fn::Join"][1][1] = {"Ref": "Alias"}
    api = {
        "Api": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Name": "a", "ProtocolType": "HTTP"}},
        "Stage": {
            "Type": "AWS::ApiGatewayV2::Stage",
            "Properties": {"ApiId": {"Ref": "Api"}, "StageName": "$default", "AutoDeploy": True},
        },
        "To": {
            "Type": "AWS::ApiGatewayV2::Integration",
            "Properties": {
                "ApiId": {"Ref": "Api"},
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": uri,
                "PayloadFormatVersion": "2.0",
                "TimeoutInMillis": 5000,
            },
        },
        "Route": {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {
                "ApiId": {"Ref": "Api"},
                "RouteKey": "POST /models/{name}/predict",
                "Target": {"Fn::Join": ["/", ["integrations", {"Ref": "To"}]]},
                "AuthorizationType": "AWS_IAM",
            },
        },
    }
    stack, routes = Stack(aws), strict.MotoRoutes()
    resources = {"Role": ROLE, "Function": FUNCTION, "Version": VERSION, "Alias": ALIAS, **api}
    outputs = {"ApiUrl": {"Value": {"Fn::GetAtt": ["Api", "ApiEndpoint"]}}}
    before = routes.generation
    assert stack.create(outputs, **resources) == "CREATE_COMPLETE"
    (route,) = routes.routes()
    generation = routes.generation
    resources["Route"] = changed(api["Route"], RouteKey="$default", AuthorizationType="NONE")
    stack.update(outputs, **resources)
    (after,) = routes.routes()

    assert stack.outputs() == {"ApiUrl": "http://localhost:9999"}
    assert (route.method, route.path, route.auth) == ("POST", "/models/{name}/predict", "AWS_IAM")
    assert route.function.endswith(":function:f:live")
    assert route.timeout_ms == 5000
    assert (after.route_key, after.method, after.path, after.auth) == ("$default", "", "", "NONE")
    assert before < generation < routes.generation


def test_an_alarm_keeps_its_metric_math(aws):
    """All of the alarm's properties are what DescribeAlarms gives."""
    metric = {"Namespace": "Perch", "MetricName": "Failures", "Dimensions": [{"Name": "Endpoint", "Value": "digits"}]}
    queries = [
        {"Id": "failed", "ReturnData": False, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}},
        {"Id": "rate", "Expression": "failed / 10", "Label": "share", "ReturnData": True},
    ]
    properties = {
        "AlarmName": "perch/digits/failures",
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 2,
        "Threshold": 0.05,
        "Metrics": queries,
        "TreatMissingData": "notBreaching",
        "AlarmActions": ["arn:aws:sns:us-east-1:123456789012:t"],
    }
    Stack(aws).create(Alarm={"Type": "AWS::CloudWatch::Alarm", "Properties": properties})
    (alarm,) = aws("cloudwatch").describe_alarms()["MetricAlarms"]

    for name in ("Threshold", "EvaluationPeriods", "DatapointsToAlarm", "TreatMissingData", "AlarmActions"):
        assert alarm[name] == properties[name]
    assert {query["Id"]: query.get("Expression") for query in alarm["Metrics"]} == {
        "failed": None,
        "rate": "failed / 10",
    }
    assert alarm["Metrics"][0]["MetricStat"]["Metric"]["Dimensions"] == metric["Dimensions"]


def test_a_bucket_keeps_versioning_access_lifecycle_and_events(aws):
    """And its policy can be read, but does not lock the owner out."""
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    bucket = {
        "BucketName": "models",
        "VersioningConfiguration": {"Status": "Enabled"},
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": True},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Status": "Enabled",
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                }
            ]
        },
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
    }
    policy = {
        "Bucket": {"Ref": "B"},
        "PolicyDocument": {"Statement": [{**deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]},
    }
    resources = {
        "B": {"Type": "AWS::S3::Bucket", "Properties": bucket},
        "P": {"Type": "AWS::S3::BucketPolicy", "Properties": policy},
    }
    stack, s3 = Stack(aws), aws("s3")
    assert stack.create(**resources) == "CREATE_COMPLETE"

    assert s3.get_bucket_versioning(Bucket="models")["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket="models")["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket="models")["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    from moto.s3.models import s3_backends

    assert s3_backends["123456789012"]["aws"].buckets["models"].notification_configuration.event_bridge is not None
    assert "SecureTransport" in s3.get_bucket_policy(Bucket="models")["Policy"]
    assert s3.put_object(Bucket="models", Key="k", Body=b"x")["VersionId"]


def test_a_table_keeps_recovery_and_time_to_live_and_its_items(aws):
    """An update of the settings leaves the items where they are."""
    table = {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "TimeToLiveSpecification": {"AttributeName": "expires", "Enabled": True},
        },
    }
    stack, api = Stack(aws), aws("dynamodb")
    stack.create(T=table)
    name = stack.ids()["T"]
    api.put_item(TableName=name, Item={"pk": {"S": "a"}})
    stack.update(T=changed(table, DeletionProtectionEnabled=True))

    backups = api.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert api.describe_time_to_live(TableName=name)["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "expires",
    }
    assert api.describe_table(TableName=name)["Table"]["DeletionProtectionEnabled"]
    assert stack.ids()["T"] == name
    assert api.get_item(TableName=name, Key={"pk": {"S": "a"}})["Item"]


def test_a_rule_keeps_transformer_retries_and_dead_letters(aws):
    """The targets are what the template says, after an update too."""
    target = {
        "Id": "one",
        "Arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
        "InputTransformer": {"InputPathsMap": {"t": "$.time"}, "InputTemplate": '{"endpoint": "digits", "time": <t>}'},
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:123456789012:q"},
        "RetryPolicy": {"MaximumRetryAttempts": 4, "MaximumEventAgeInSeconds": 300},
    }
    rule = {"Type": "AWS::Events::Rule", "Properties": {"ScheduleExpression": "rate(1 minute)", "Targets": [target]}}
    stack, api = Stack(aws), aws("events")
    stack.create(R=rule)
    name = stack.ids()["R"]
    assert api.list_targets_by_rule(Rule=name)["Targets"] == [target]
    stack.update(R=changed(rule, ScheduleExpression="rate(5 minutes)"))

    assert stack.ids()["R"] == name
    assert api.describe_rule(Name=name)["ScheduleExpression"] == "rate(5 minutes)"
    assert api.list_targets_by_rule(Rule=name)["Targets"] == [target]


def test_queues_topics_and_log_groups_are_updated_in_place(aws):
    """Their physical ids, their subscriptions and their lines stay."""
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 30}}
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "a"}}
    subscription = {
        "Type": "AWS::SNS::Subscription",
        "Properties": {
            "TopicArn": {"Ref": "T"},
            "Protocol": "sqs",
            "Endpoint": {"Fn::GetAtt": ["Q", "Arn"]},
            "RawMessageDelivery": True,
        },
    }
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/aws/lambda/f", "RetentionInDays": 30}}
    policy = {"Topics": [{"Ref": "T"}], "PolicyDocument": {"Statement": []}}
    rest = {"S": subscription, "P": {"Type": "AWS::SNS::TopicPolicy", "Properties": policy}}
    stack = Stack(aws)
    stack.create(Q=queue, T=topic, G=group, **rest)
    before = stack.ids()
    strict.MotoLogSink(batch=1).write("/aws/lambda/f", "s", _now(), "a line")
    stack.update(
        Q=changed(queue, VisibilityTimeout=90),
        T=changed(topic, DisplayName="b"),
        G=changed(group, RetentionInDays=7),
        **rest,
    )

    assert stack.ids() == before
    assert aws("logs").describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
    assert aws("logs").filter_log_events(logGroupName="/aws/lambda/f")["events"][0]["message"] == "a line"
    attributes = aws("sqs").get_queue_attributes(QueueUrl=before["Q"], AttributeNames=["VisibilityTimeout"])
    assert attributes["Attributes"] == {"VisibilityTimeout": "90"}
    aws("sns").publish(TopicArn=before["T"], Message="hello")
    assert aws("sqs").receive_message(QueueUrl=before["Q"])["Messages"][0]["Body"] == "hello"


def _now():
    from datetime import UTC, datetime

    return datetime(2031, 5, 4, tzinfo=UTC)
