"""The template's alarms: what watches each endpoint as a whole, and what watches the watchers.

An endpoint's alarms are named `<name>/<endpoint>/<guard>`; each calls the roll-back itself and tells the topic. (The
alarms on one candidate revision are made by the driver, for the length of a rollout.) An endpoint that keeps its level
must not set its alarm off by chance, for in a bake that takes a good candidate back; the small and the slow are for the
judge. The alarms on the control side are named `<name>-…`, without a slash, so that they wake nobody but people.

Missing data is not breaching where data is sparse, with one exception: ticks that are missing are the very thing to
notice. That alarm is in ALARM for the first minutes after a deployment, until the first ticks are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.constructs.predictor import ALIAS
from cdk.rollout_settings import MINUTE
from cdk.settings import Endpoint

NOT_BREACHING, BREACHING = "notBreaching", "breaching"
ROLES = ("stable", "candidate")
SURELY = 5  # standard deviations of a count, beyond which chance hardly gets in a week of minutes

_Query = cloudwatch.CfnAlarm.MetricDataQueryProperty
_Stat = cloudwatch.CfnAlarm.MetricStatProperty
_Metric = cloudwatch.CfnAlarm.MetricProperty
_Dimension = cloudwatch.CfnAlarm.DimensionProperty


def alarm_name(name: str, endpoint: str, guard: str) -> str:
    """Return the name of an endpoint's alarm."""
    return f"{name}/{endpoint}/{guard}"


@dataclass(frozen=True, kw_only=True)
class EndpointAlarmsProps:
    """`roll_back_arn` and `topic_arn` are called when an alarm goes off."""

    name: str
    endpoint: Endpoint
    roll_back_arn: str
    topic_arn: str


class EndpointAlarms(Construct):
    """The alarms of one endpoint: failed requests, and failed probes of either revision."""

    def __init__(self, scope: Construct, id_: str, *, props: EndpointAlarmsProps) -> None:
        super().__init__(scope, id_)
        self._props = props
        self._actions = [props.roll_back_arn, props.topic_arn]
        self._watch_failures()
        for role in ROLES:
            self._watch_probes(role)

    def _watch_failures(self) -> None:
        props, endpoint, guards = self._props, self._props.endpoint, self._props.endpoint.guards
        function = f"{props.name}-{endpoint.name}"
        live = {"FunctionName": function, "Resource": f"{function}:{ALIAS}"}
        allowed = f"{guards.error_rate:.6f} * invocations"
        beyond = f"(failed - {guards.min_errors} - {allowed})"
        cloudwatch.CfnAlarm(
            self,
            "Failures",
            alarm_name=alarm_name(props.name, endpoint.name, "failures"),
            alarm_description=f"{endpoint.name} failed far more requests in two of three minutes than the "
            f"{guards.error_rate:.1%} that may fail: by {SURELY} standard deviations and {guards.min_errors} more.",
            metrics=[
                _sum("invocations", "AWS/Lambda", "Invocations", live),
                _sum("crashes", "AWS/Lambda", "Errors", live),
                _sum("failures", "Perch", "Failures", {"Endpoint": endpoint.name}),
                # A crash, a time-out or an out-of-memory kill is an error of Lambda's; a 5xx answer is a failure that
                # the predictor counts itself. No request is both. What FILL makes of a series without any point is not
                # documented; so each minute with requests has a zero of its own.
                _Query(
                    id="failed",
                    return_data=False,
                    expression="SUM([FILL(crashes, 0), FILL(failures, 0), 0 * invocations])",
                ),
                # failed > allowed + SURELY * sqrt(allowed) + min_errors; CloudWatch documents no square root.
                _Query(
                    id="percent",
                    label="failed requests, %",
                    return_data=True,
                    expression=f"IF(({beyond} > 0) AND ({beyond} * {beyond} > {SURELY**2} * {allowed}), "
                    "100 * failed / invocations, 0)",
                ),
            ],
            comparison_operator="GreaterThanThreshold",
            threshold=round(100 * guards.error_rate, 4),
            evaluation_periods=3,
            datapoints_to_alarm=2,
            treat_missing_data=NOT_BREACHING,
            alarm_actions=self._actions,
        )

    def _watch_probes(self, role: str) -> None:
        endpoint = self._props.endpoint
        # One minute, and back to OK by itself after it: an alarm only speaks when it changes state, so one that
        # stayed on between two health checks would be silent at the second failure.
        cloudwatch.CfnAlarm(
            self,
            f"Probes{role.title()}",
            alarm_name=alarm_name(self._props.name, endpoint.name, f"probes-{role}"),
            alarm_description=f"The {role} revision of {endpoint.name} failed its golden requests.",
            namespace="Perch",
            metric_name="ProbeFailures",
            dimensions=[_Dimension(name="Endpoint", value=endpoint.name), _Dimension(name="Role", value=role)],
            statistic="Sum",
            period=MINUTE,
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=endpoint.guards.probe_failures,
            evaluation_periods=1,
            treat_missing_data=NOT_BREACHING,
            alarm_actions=self._actions,
        )


@dataclass(frozen=True, kw_only=True)
class ControlAlarmsProps:
    """What has to work for everything else to be watched."""

    name: str
    tick_s: int
    driver_name: str
    dead_letters: sqs.IQueue
    topic_arn: str


class ControlAlarms(Construct):
    """The alarms on the control side: events that were given up, a driver that fails, a driver that is silent."""

    def __init__(self, scope: Construct, id_: str, *, props: ControlAlarmsProps) -> None:
        super().__init__(scope, id_)
        driver = [_Dimension(name="FunctionName", value=props.driver_name)]
        cloudwatch.CfnAlarm(
            self,
            "DeadLetters",
            alarm_name=f"{props.name}-dead-letters",
            alarm_description="Events could not be handled; they wait in the dead-letter queue.",
            namespace="AWS/SQS",
            metric_name="ApproximateNumberOfMessagesVisible",
            dimensions=[_Dimension(name="QueueName", value=props.dead_letters.queue_name)],
            statistic="Maximum",
            period=5 * MINUTE,
            comparison_operator="GreaterThanThreshold",
            threshold=0,
            evaluation_periods=1,
            treat_missing_data=NOT_BREACHING,
            alarm_actions=[props.topic_arn],
        )
        cloudwatch.CfnAlarm(
            self,
            "DriverErrors",
            alarm_name=f"{props.name}-driver-errors",
            alarm_description="The rollout driver fails at tick after tick, so no rollout moves.",
            namespace="AWS/Lambda",
            metric_name="Errors",
            dimensions=driver,
            statistic="Sum",
            period=props.tick_s,
            comparison_operator="GreaterThanThreshold",
            threshold=0,
            evaluation_periods=3,
            treat_missing_data=NOT_BREACHING,
            alarm_actions=[props.topic_arn],
        )
        cloudwatch.CfnAlarm(
            self,
            "DriverSilent",
            alarm_name=f"{props.name}-driver-silent",
            alarm_description="The rollout driver has not run for five ticks; rollouts stand still, unwatched.",
            namespace="AWS/Lambda",
            metric_name="Invocations",
            dimensions=driver,
            statistic="Sum",
            period=props.tick_s,
            comparison_operator="LessThanThreshold",
            threshold=1,
            evaluation_periods=5,
            treat_missing_data=BREACHING,
            alarm_actions=[props.topic_arn],
        )


class AlarmPermission(Construct):
    """Lets the alarms of all endpoints, the driver's included, call a function; alarms are named for it by prefix."""

    def __init__(self, scope: Construct, id_: str, *, name: str, function: lambda_.IFunction) -> None:
        super().__init__(scope, id_)
        stack = Stack.of(self)
        lambda_.CfnPermission(
            self,
            "Permission",
            action="lambda:InvokeFunction",
            function_name=function.function_arn,
            principal="lambda.alarms.cloudwatch.amazonaws.com",
            source_account=stack.account,
            source_arn=stack.format_arn(service="cloudwatch", resource=f"alarm:{name}/*"),
        )


def _sum(
    id_: str, namespace: str, metric: str, dimensions: dict[str, str]
) -> cloudwatch.CfnAlarm.MetricDataQueryProperty:
    return _Query(
        id=id_,
        return_data=False,
        metric_stat=_Stat(
            metric=_Metric(
                namespace=namespace,
                metric_name=metric,
                dimensions=[_Dimension(name=name, value=value) for name, value in dimensions.items()],
            ),
            period=MINUTE,
            stat="Sum",
        ),
    )
