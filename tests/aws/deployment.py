"""A deployment of one endpoint on strict, in-process moto: the real adapters, use cases and boto3 clients, no servers.

The predictor is played by `Predictors`, which answers for whatever model the invoked version points to; what it must do
wrong is told by model version. Time stands still until a test moves it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from botocore.config import Config
from moto import mock_aws

from perch.app.advance import Progress, advance
from perch.app.world import World, make_world
from perch.aws.clients import Clients
from perch.domain.experiment import Split
from perch.domain.model import ModelVersion, Pointer, Probe
from perch.domain.policy import EndpointPolicy, Settings
from perch.domain.rollout import Endpoint, Routing
from perch.local import strict
from perch.local.metrics.api import MetricsApi
from perch.local.metrics.store import MetricStore
from perch.local.ports import Invocation
from perch.local.sessions import make_session
from tests.unit.values import CANARY, T0

TABLE, BUCKET, FUNCTION = "registry", "model-store", "perch-digits"
SETTINGS = Settings(name="perch", endpoints=(CANARY,))


@dataclass
class Predictors:
    """Plays the predictor function; `broken` says per model version what is answered instead of a prediction."""

    broken: dict[str, Callable[[], dict]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        target = strict.MotoFunctions().resolve(function, qualifier)
        event = json.loads(payload)
        text = self._chosen(target.function.environment, event)
        if event["requestContext"]["http"]["method"] == "GET":  # only to see whether it lives
            answer = {"statusCode": 200, "body": "{}"}
        else:
            self.asked.append((target.function.version, text and Pointer.from_json(text).version))
            answer = self._answer(text, event)
        return Invocation(
            request_id="r", payload=json.dumps(answer).encode(), error=None,
            executed_version=target.function.version, duration_ms=1.0, cold=False,
        )  # fmt: skip

    def _chosen(self, environment: dict[str, str], event: dict) -> str | None:
        """The pointer that answers: that of the variant that is asked for, if the revision has one."""
        split = environment.get("PERCH_EXPERIMENT")
        forced = event.get("headers", {}).get("x-perch-variant")
        if split and forced in Split.from_json(split).challengers:
            return Split.from_json(split).challengers[forced].to_json()
        return environment.get("PERCH_POINTER")

    def _answer(self, text: str | None, event: dict) -> dict:
        if text is None:
            return {"statusCode": 503, "body": json.dumps({"error": "no model yet"})}
        pointer = Pointer.from_json(text)
        if pointer.version in self.broken:
            return self.broken[pointer.version]()
        rows = json.loads(event["body"])["features"]
        body = {"model": pointer.model, "version": pointer.version, "predictions": [1 for _ in rows]}
        return {"statusCode": 200, "body": json.dumps(body)}


def answers(status: int, error: str) -> Callable[[], dict]:
    return lambda: {"statusCode": status, "body": json.dumps({"error": error})}


@dataclass
class Deployment:
    """The world, the hands of a test in it, and its clock."""

    world: World
    clients: Clients
    predictors: Predictors
    metrics: MetricStore
    policy: EndpointPolicy = CANARY
    now: datetime = T0
    ticks: int = 0

    def tick(self, minutes: float = 1.0) -> Progress:
        """Let time pass, then run the driver once."""
        self.now += timedelta(minutes=minutes)
        self.ticks += 1
        return advance(self.world, self.policy, now=self.now, owner=f"tick-{self.ticks}")

    def settle(self, limit: int = 30) -> None:
        """Tick until there is nothing left to do now."""
        for _ in range(limit):
            if not self.tick().done:
                return
        raise AssertionError(f"still moving after {limit} ticks")

    def registered(self, version: str, **fields) -> ModelVersion:
        """Put a model version into the registry, as the registration would."""
        number = self.world.registry.last_number("digits") + 1
        pointer = Pointer(
            model="digits", version=version, key=f"models/digits/{version}/model.onnx", version_id=f"id-{version}",
            sha256=f"{number:064d}", size=10, format="onnx",
        )  # fmt: skip
        found = ModelVersion(
            pointer=pointer, number=number, runtimes=("onnx",), registered_at=self.now, created_by="ada",
            probes=(Probe(features=((0.0,) * 4,), expect={"predictions": [1]}),),
        )  # fmt: skip
        found = replace(found, **fields)
        assert self.world.registry.register(found)
        return found

    def traffic(
        self,
        version: str,
        *,
        requests: int,
        failures: int = 0,
        crashes: int = 0,
        latency_ms: tuple[float, ...] = (10.0,),
        logged: bool = True,
    ) -> None:
        """Count requests of one revision in the minute that is now.

        Lambda counts invocations and errors; each request that did not crash leaves a log line, unless not `logged`.
        """
        executed = {"FunctionName": FUNCTION, "Resource": f"{FUNCTION}:live", "ExecutedVersion": version}
        self.metrics.put("AWS/Lambda", "Invocations", executed, float(requests), at=self.now)
        self.metrics.put("AWS/Lambda", "Errors", executed, float(crashes), at=self.now)
        if logged:
            self.log(version, requests - crashes, failures=failures, latency_ms=latency_ms, at=self.now)

    def log(
        self, version: str, requests: int, *, failures: int = 0, latency_ms: tuple[float, ...] = (10.0,), at: datetime
    ) -> None:
        """Let the log lines of one revision arrive; they are dated `at`, and took by turns one of `latency_ms`."""
        ours = {"Endpoint": "digits", "Revision": version}
        self.metrics.put("Perch", "Failures", ours, float(failures), at=at)
        each, more = divmod(requests, len(latency_ms))
        for turn, milliseconds in enumerate(latency_ms):
            if number := each + (turn < more):
                self.metrics.put("Perch", "Latency", ours, milliseconds, at=at, count=number)

    def both(
        self,
        requests: int = 1000,
        *,
        failures: int = 0,
        crashes: int = 0,
        stable_failures: int = 0,
        logged: bool = True,
    ) -> None:
        """Count requests of this minute as the alias would share them out; `failures` are the candidate's."""
        routing = self.alias
        ours = round(requests * routing.weight) if routing.other else 0
        if routing.other:
            self.traffic(routing.other, requests=ours, failures=failures, crashes=crashes, logged=logged)
        self.traffic(routing.version, requests=requests - ours, failures=stable_failures, logged=logged)

    def live(self, version: str = "v1", *, requests: int = 0) -> None:
        """Bring the first version up, and let it serve so many requests (from 100 on what is usual is known)."""
        self.registered(version)
        self.settle()
        assert self.state.stable
        assert self.state.stable.pointer.version == version
        if requests:
            self.traffic(self.alias.version, requests=requests)

    @property
    def state(self) -> Endpoint:
        return self.world.registry.endpoint("digits")

    @property
    def alias(self) -> Routing:
        return self.world.functions.alias(FUNCTION).routing

    @property
    def kinds(self) -> list[str]:
        return [e.kind for e in self.world.registry.ledger("digits")]

    def deploy_code(self, body: str) -> None:
        """What CloudFormation does when the predictor's code changes."""
        self.clients.lambda_.update_function_code(FunctionName=FUNCTION, ZipFile=_zip(body))


@contextmanager
def deployed(settings: Settings = SETTINGS, *, settle_s: float = 0.0) -> Iterator[Deployment]:
    """Create table, bucket, function, placeholder version and alias on a moto of its own."""
    with mock_aws():
        deployment, metrics_api = _deploy(settings, settle_s)
        try:
            yield deployment
        finally:
            metrics_api.uninstall()
            strict.uninstall()


def _deploy(settings: Settings, settle_s: float) -> tuple[Deployment, MetricsApi]:
    predictors, store = Predictors(), MetricStore()
    deployment = Deployment.__new__(Deployment)

    class Now:
        def now(self) -> datetime:
            return deployment.now

    strict.install(strict.StrictSettings(clock=Now(), settle_s=settle_s, invoker=predictors))
    metrics_api = MetricsApi(store, now=lambda: deployment.now)
    metrics_api.install()
    # A name for all requests, or botocore would put one together anew for each.
    clients = Clients(make_session(region_name="us-east-1", config=Config(user_agent="tests")))
    role = clients.session.client("iam").create_role(RoleName="predictor", AssumeRolePolicyDocument="{}")
    clients.dynamodb.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    clients.s3.create_bucket(Bucket=BUCKET)
    clients.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    deployment.__init__(
        world=make_world(clients, settings, table=TABLE, bucket=BUCKET), clients=clients, predictors=predictors,
        metrics=store, policy=settings.endpoints[0],
    )  # fmt: skip
    clients.lambda_.create_function(
        FunctionName=FUNCTION, Runtime="python3.13", Handler="handler.handler", Role=role["Role"]["Arn"],
        Code={"ZipFile": _zip("first")}, Environment={"Variables": {"PERCH_ENDPOINT": "digits"}},
    )  # fmt: skip
    deployment.now += timedelta(seconds=settle_s)
    clients.lambda_.publish_version(FunctionName=FUNCTION)
    clients.lambda_.create_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="1")
    return deployment, metrics_api


@pytest.fixture
def deployment(monkeypatch):
    """A fresh deployment with nothing registered."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with deployed() as fresh:
        yield fresh


def _zip(body: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), f"# {body}\n")
    return data.getvalue()
