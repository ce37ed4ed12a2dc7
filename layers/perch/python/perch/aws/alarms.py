"""The alarms of an endpoint: reading all of them, making the ones that watch a candidate, and taking those away.

Alarms on a revision need its Lambda version number in their dimensions, so the driver makes them for each rollout and
removes them at its end. The dimensions matter: traffic that came through the alias is counted under FunctionName,
Resource (`function:alias`) *and* ExecutedVersion together; any other combination stays at INSUFFICIENT_DATA for ever.
Missing data is not breaching: no traffic is no evidence, and the judge, not the alarm, asks for evidence.

The alarm on errors is for the gross and sudden: it sees a minute as soon as CloudWatch does, and the judge some
minutes later; but the judge sees the small and the slow. The alarm looks at every minute and forgets the one before, so
chance must not set it off. It goes off when a minute has

    failures > e + 5 * sqrt(e) + min_errors      for e = the failures that are allowed: error_rate of the requests,
                                                 and for e = those at twice the failed share of stable's same minute

so a revision that keeps its level sets it off in less than one week in a hundred. When something breaks that both lean
on, both fail alike, and taking the candidate back would cure nothing. What it cannot see: a candidate of few requests
(with 5 % and 5 failures: of fewer than 9 a minute if all fail, than 24 if half do); a stable revision of few requests
shows no shared trouble. Latency is the judge's alone: percentiles of few requests mean little (CloudWatch: percentiles
with low samples). Where the guard `errors` is a dry run, there is no alarm.

CloudWatch has no square root that it documents, so squares are compared. Nor does it say what FILL makes of a series
without any point: the sums below hold a zero for every minute with requests to the candidate, and SUM over several
series takes what is there, so that they are right whether FILL fills it or leaves it empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perch.aws.functions import ALIAS
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.names import AlarmName, parse_alarm
from perch.domain.policy import GuardPolicy

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

ERRORS = "candidate-errors"
WORSE = 2  # times the failed share of the stable revision
SURELY = 5  # standard deviations of a count, beyond which chance hardly gets in a week of minutes


class Alarms:
    """CloudWatch alarms, in our words. `name` is the deployment's; `actions` are ARNs to call when one goes off."""

    def __init__(self, client: CloudWatchClient, *, name: str, actions: tuple[str, ...] = ()) -> None:
        self._client = client
        self._name = name
        self._actions = list(actions)

    def of(self, endpoint: str) -> tuple[AlarmSeen, ...]:
        """Return every alarm of an endpoint with its state (one call)."""
        answer = self._client.describe_alarms(AlarmNamePrefix=f"{self._name}/{endpoint}/", AlarmTypes=["MetricAlarm"])
        return tuple(
            AlarmSeen(
                name=a["AlarmName"],
                in_alarm=a["StateValue"] == "ALARM",
                # StateUpdatedTimestamp also moves when only the reason changes.
                since=a.get("StateTransitionedTimestamp") or a["StateUpdatedTimestamp"],
                reason=a.get("StateReason", ""),
            )
            for a in answer["MetricAlarms"]
        )

    def watch(self, endpoint: str, guards: GuardPolicy, function: str, version: str, *, stable: str) -> None:
        """Make the alarms of one candidate revision, if any is wanted; making them again changes nothing.

        Args:
            endpoint: name of the endpoint.
            guards: the limits.
            function: name of its function.
            version: Lambda version of the candidate.
            stable: Lambda version of the stable revision, which the candidate's errors are compared with.
        """
        if not wanted(guards):
            return
        allowed = f"{guards.error_rate:.6f} * invocations"
        # Never a division by zero; without requests stable failed nothing.
        likewise = f"{WORSE} * invocations * stable_failed / (stable_requests + (stable_requests == 0))"
        self._put(
            endpoint,
            ERRORS,
            version,
            description=f"Revision {version} failed far more requests in a minute than the {guards.error_rate:.1%} "
            f"that may fail, and far more than {WORSE} times the share that revision {stable} failed in it: in both "
            f"cases by {SURELY} standard deviations and {guards.min_errors} failures more.",
            threshold=100 * guards.error_rate,
            Metrics=[
                *_requests("", endpoint, function, version),
                *_requests("stable_", endpoint, function, stable),
                _expression("stable_requests", "SUM([FILL(stable_invocations, 0), 0 * invocations])"),
                _expression(
                    "percent",
                    f"IF(({_far_beyond(allowed, guards.min_errors)}) AND ({_far_beyond(likewise, guards.min_errors)}), "
                    "100 * failed / invocations, 0)",
                    label="failed requests, %",
                ),
            ],
        )

    def unwatch(self, endpoint: str) -> None:
        """Remove every alarm of an endpoint that watches a revision (two calls, or one when there is none).

        Only alarms that exist are named: DeleteAlarms deletes nothing at all when one of its names is unknown.
        """
        ours = [(a.name, parse_alarm(a.name)) for a in self.of(endpoint)]
        names = [text for text, name in ours if name and name.version]
        if names:
            self._client.delete_alarms(AlarmNames=names)

    def _put(self, endpoint: str, guard: str, version: str, *, description: str, threshold: float, **what: Any) -> None:
        self._client.put_metric_alarm(
            AlarmName=str(AlarmName(self._name, endpoint, guard, version)),
            AlarmDescription=description,
            ComparisonOperator="GreaterThanThreshold",
            Threshold=threshold,
            EvaluationPeriods=1,
            DatapointsToAlarm=1,
            TreatMissingData="notBreaching",
            AlarmActions=self._actions,
            **what,
        )


def wanted(guards: GuardPolicy) -> bool:
    """Whether a candidate has an alarm at all: not where its errors shall only be reported."""
    return "errors" not in guards.dry_run


def _far_beyond(expected: str, more: int) -> str:
    """The expression for `failed` > expected + SURELY * sqrt(expected) + more."""
    beyond = f"(failed - {more} - {expected})"
    return f"({beyond} > 0) AND ({beyond} * {beyond} > {SURELY**2} * {expected})"


def _revision(endpoint: str, version: str) -> list[dict[str, str]]:
    return [{"Name": "Endpoint", "Value": endpoint}, {"Name": "Revision", "Value": version}]


def _requests(prefix: str, endpoint: str, function: str, version: str) -> list[dict[str, Any]]:
    """The series `<prefix>invocations` and `<prefix>failed` of one revision.

    The latter has a value, if only 0, in every minute with requests to the candidate.
    """
    executed = [
        {"Name": "FunctionName", "Value": function},
        {"Name": "Resource", "Value": f"{function}:{ALIAS}"},
        {"Name": "ExecutedVersion", "Value": version},
    ]
    return [
        _metric(f"{prefix}invocations", "AWS/Lambda", "Invocations", executed),
        _metric(f"{prefix}crashes", "AWS/Lambda", "Errors", executed),
        _metric(f"{prefix}failures", "Perch", "Failures", _revision(endpoint, version)),
        _expression(f"{prefix}failed", f"SUM([FILL({prefix}crashes, 0), FILL({prefix}failures, 0), 0 * invocations])"),
    ]


def _expression(identity: str, text: str, *, label: str = "") -> dict[str, Any]:
    """A metric math expression; the one with a label is the one that the alarm watches."""
    return {"Id": identity, "Expression": text, "ReturnData": bool(label)} | ({"Label": label} if label else {})


def _metric(identity: str, namespace: str, name: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "Id": identity,
        "ReturnData": False,
        "MetricStat": {
            "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions},
            "Period": 60,
            "Stat": "Sum",
        },
    }
