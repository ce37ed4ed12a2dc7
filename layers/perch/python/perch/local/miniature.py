"""AWS in miniature: one endpoint on strict moto inside this process, driven by the real driver under virtual time.

    clock ─┬─► alarms (local evaluator) ──► the roll-back use case       table, bucket, function, alias: strict moto
           └─► driver (`perch.app.advance`) ─► adapters ─► boto3 ─┬────► metrics: the local store
    whoever plays the traffic ────────────────────────────────────┘

No servers and no workers: the predictor is a stand-in that passes its probes, and traffic is what somebody counts into
the metric store. One miniature a process at a time, since moto's state belongs to the process.

What is only read at every tick, metrics and states of alarms, is read without the wire: by the same code as behind the
CloudWatch API, but not written into HTTP messages and back, which would take most of the time. Left out: the event bus
(nothing is announced to anybody), replays, hooks, and the alarms that the template makes of the whole endpoint.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.config import Config
from moto import mock_aws
from moto.cloudwatch.models import cloudwatch_backends
from moto.dynamodb.models import dynamodb_backends

from perch.app.advance import Progress, advance
from perch.app.roll_back import roll_back_on_alarm
from perch.app.world import World, make_world
from perch.aws.alarms import Alarms
from perch.aws.clients import Clients
from perch.aws.evidence import RevisionMetrics
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.codec import parse_time
from perch.domain.errors import NotReady
from perch.domain.formats import formats_of
from perch.domain.model import ModelVersion, Pointer, Probe
from perch.domain.names import parse_alarm
from perch.domain.policy import EndpointPolicy, Settings
from perch.local import strict
from perch.local.alarms.evaluator import AlarmEvaluator
from perch.local.clock import VirtualClock
from perch.local.metrics.api import MetricsApi, evaluate_queries, read_query
from perch.local.metrics.store import MetricStore
from perch.local.ports import Invocation
from perch.local.sessions import make_session

NAME, TABLE, BUCKET, REGION = "perch", "registry", "model-store", "us-east-1"
START = datetime(2026, 1, 5, tzinfo=UTC)
_ACCOUNT = "123456789012"
_ROLL_BACK = f"arn:aws:lambda:{REGION}:{_ACCOUNT}:function:{NAME}-roll-back"
# No checks of parameters, which the adapters' own tests make; and whatever the environment says, no other place.
_QUICK = Config(
    parameter_validation=False,
    user_agent="perch",
    ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # botocore knows it, its stubs do not
)


@dataclass
class Miniature:
    """The deployment of one endpoint, and its clock. `ticks` and `alarms_off` count what happened."""

    world: World
    clients: Clients
    policy: EndpointPolicy
    clock: VirtualClock
    metrics: MetricStore
    ticks: int = 0
    alarms_off: int = 0

    @property
    def function(self) -> str:
        """The name of the endpoint's function."""
        return self.world.function(self.policy.name)

    def tick(self) -> Progress:
        """Run the driver once, now."""
        self.ticks += 1
        now = self.clock.now()
        # A timer that stands still: what a probe really takes here says nothing.
        done = advance(self.world, self.policy, now=now, owner=f"tick-{self.ticks}", timer=lambda: 0.0)
        self._forget_looks()
        return done

    def _forget_looks(self) -> None:
        """Drop what nothing here reads: moto copies the whole table for every transaction."""
        for items in dynamodb_backends[_ACCOUNT][REGION].tables[TABLE].items.values():
            for key in [key for key in items if key.value.startswith("LOOK#")]:
                del items[key]

    def register(self, version: str) -> None:
        """Put a model version into the registry, as its registration would; the next tick takes it up."""
        model = self.policy.model
        number = self.world.registry.last_number(model) + 1
        pointer = Pointer(
            model=model,
            version=version,
            key=f"models/{model}/{version}/model.{self.policy.runtime}",
            version_id=f"id-{version}",
            sha256=f"{number:064d}",
            size=1,
            format=formats_of(self.policy.runtime)[0],
        )
        self.world.registry.register(
            ModelVersion(
                pointer=pointer,
                number=number,
                runtimes=(self.policy.runtime,),
                registered_at=self.clock.now(),
                created_by="perch",
                probes=(Probe(features=((0.0,),), expect={"predictions": [1]}),),
            )
        )

    def alarmed(self, arn: str, body: str, *, subject: str | None = None) -> None:  # noqa: ARG002 - the shape of Send
        """Take an alarm's direct action, as the function `roll_back` does."""
        told = json.loads(body)["alarmData"]
        name = parse_alarm(told["alarmName"])
        if name is None or told["state"]["value"] != "ALARM":
            return
        self.alarms_off += 1
        since = parse_time(told["state"]["timestamp"])
        roll_back_on_alarm(self.world, name, reason=told["state"].get("reason", ""), since=since, now=self.clock.now())


class _Predictor:
    """Answers every probe as it expects."""

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        run = strict.MotoFunctions().resolve(function, qualifier).function
        pointer = Pointer.from_json(run.environment["PERCH_POINTER"])
        rows = json.loads(json.loads(payload)["body"])["features"]
        body = {"model": pointer.model, "version": pointer.version, "predictions": [1 for _ in rows]}
        answer = {"statusCode": 200, "body": json.dumps(body)}
        return Invocation(
            request_id="probe",
            payload=json.dumps(answer).encode(),
            error=None,
            executed_version=run.version,
            duration_ms=1.0,
            cold=False,
        )


class _Wireless:
    """What `RevisionMetrics` asks of a CloudWatch client, answered by the store itself."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def get_paginator(self, operation: str) -> _Wireless:
        if operation != "get_metric_data":
            raise NotReady(f"{operation} is not played here")
        return self

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        queries = [read_query(query) for query in asked["MetricDataQueries"]]
        begin, end = int(asked["StartTime"].timestamp()), math.ceil(asked["EndTime"].timestamp())
        found = evaluate_queries(self._store, queries, begin, end)
        results = [
            {
                "Id": query.id,
                "Timestamps": [datetime.fromtimestamp(at, UTC) for at in found[query.id]],
                "Values": list(found[query.id].values()),
                "StatusCode": "Complete",
            }
            for query in queries
        ]
        yield {"MetricDataResults": results}


class _Alarms(Alarms):
    """The alarms, whose states are read from moto itself."""

    def of(self, endpoint: str) -> tuple[AlarmSeen, ...]:
        known = cloudwatch_backends[_ACCOUNT][REGION].alarms.values()
        return tuple(
            AlarmSeen(
                name=alarm.name,
                in_alarm=alarm.state_value == "ALARM",
                since=alarm.state_transitioned_timestamp,
                reason=alarm.state_reason,
            )
            for alarm in known
            if alarm.name.startswith(f"{NAME}/{endpoint}/")
        )


@contextmanager
def miniature(policy: EndpointPolicy, *, start: datetime = START) -> Iterator[Miniature]:
    """Deploy one endpoint: table, bucket, function with its placeholder version, alias `live`."""
    with mock_aws():
        clock, store = VirtualClock(start), MetricStore()
        strict.install(strict.StrictSettings(clock=clock, invoker=_Predictor()))
        api = MetricsApi(store, now=clock.now)
        api.install()
        made = _deploy(policy, clock, store)
        alarms = AlarmEvaluator(clock, store, publish=lambda _: None, send=made.alarmed)
        alarms.install()
        try:
            yield made
        finally:
            alarms.uninstall()
            api.uninstall()
            strict.uninstall()


def _deploy(policy: EndpointPolicy, clock: VirtualClock, store: MetricStore) -> Miniature:
    clients = Clients(make_session(region_name=REGION, config=_QUICK))
    settings = Settings(name=NAME, endpoints=(policy,))
    world = make_world(clients, settings, table=TABLE, bucket=BUCKET)
    wireless: Any = _Wireless(store)
    alarms = _Alarms(clients.cloudwatch, name=NAME, actions=(_ROLL_BACK,))
    world = replace(world, metrics=RevisionMetrics(wireless), alarms=alarms)
    clients.dynamodb.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    clients.s3.create_bucket(Bucket=BUCKET)
    role = clients.session.client("iam").create_role(RoleName="predictor", AssumeRolePolicyDocument="{}")
    made = Miniature(world=world, clients=clients, policy=policy, clock=clock, metrics=store)
    clients.lambda_.create_function(
        FunctionName=made.function,
        Runtime="python3.13",
        Handler="handler.handler",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": _zip()},
        Environment={"Variables": {"PERCH_ENDPOINT": policy.name}},
    )
    clients.lambda_.publish_version(FunctionName=made.function)
    clients.lambda_.create_alias(FunctionName=made.function, Name="live", FunctionVersion="1")
    return made


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), "# a stand-in\n")
    return data.getvalue()
