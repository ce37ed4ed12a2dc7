"""The whole system on a local cloud, in the hands of a test: settings of its own, uploads, traffic, time, and looking.

Everything is done as a user would do it (S3 puts, signed HTTP requests, AWS API calls) except that time is stepped.
Tests of one module share one cloud and come after one another; each takes versions of its own (`Trial.new_version`)
and first brings its endpoint to rest (`Trial.at_rest`), so that none depends on the one before.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from perch.app.roll_back import abort
from perch.app.world import World, make_world
from perch.aws.clients import Clients
from perch.aws.functions import Functions
from perch.aws.registry import Registry
from perch.domain.ledger import Entry, broken_at
from perch.domain.policy import load_settings
from perch.domain.rollout import Endpoint, Routing
from perch.local.cloud import KEY, REGION, CloudOptions, LocalCloud
from perch.local.events.faults import DeliveryFaults
from perch.local.fixtures import PATIENCE
from tests.local.synthesizer import synthesize_settings
from tests.local.tiny_models import ORDINARY, onnx_model, torch_model

SETTINGS = """
name = "perch"

[endpoints.alpha]
runtime = "onnx"
max_artifact_mb = 1
health_check = "5 minutes"
[endpoints.alpha.rollout]
strategy = "canary"
settle = "1 minute"
steps = [{weight = "20%", hold = "2 minutes", requests = 4}, {weight = "50%", hold = "2 minutes", requests = 10}]
[endpoints.alpha.guards]
error_rate = "5%"
min_errors = 2
shift_odds = "off"        # these versions are told apart by their answers

[endpoints.beta]
runtime = "torch"
memory_mb = 2048
health_check = "5 minutes"
[endpoints.beta.rollout]
strategy = "canary"
settle = "1 minute"
steps = [{weight = "40%", hold = "2 minutes", requests = 5}]
[endpoints.beta.guards]
error_rate = "5%"
min_errors = 2
shift_odds = "off"        # these versions are told apart by their answers

[endpoints.gamma]
runtime = "onnx"
approval = "manual"
health_check = "5 minutes"
[endpoints.gamma.rollout]
strategy = "direct"
"""

STACKS = ("perch-store", "perch-serving", "perch-delivery", "perch-observability")
STEP_S = 20.0
START = datetime(
    2026, 3, 1, 12, 0, 33, tzinfo=UTC
)  # so that minutes begin, and requests are routed, the same each time
FILE = {"alpha": "model.onnx", "beta": "model.safetensors", "gamma": "model.onnx"}


def synthesize_trial(folder: Path, *, text: str = SETTINGS) -> Path:
    """Synthesize the project's app with the settings above, or others; do not write to what comes of it."""
    settings = folder / "perch.toml"
    settings.write_text(text)
    return synthesize_settings(settings, folder / "cdk.out")


def artifact(endpoint: str, favourite: int, *, fragile: bool = False) -> bytes:
    """Return an artifact of the endpoint's runtime."""
    return (torch_model if endpoint == "beta" else onnx_model)(favourite, fragile=fragile)


def changed_assembly(assembly: Path, folder: Path, comment: str, *, code: str = "") -> Path:
    """Return a copy of an assembly as it would be if the ONNX predictor's handler had a comment, or code, more.

    Assets are named by their content, the templates themselves included, so whatever changes gets a new name.
    """
    copy = shutil.copytree(assembly, folder / "cdk.out")

    def rename(old: str) -> str:
        new = hashlib.sha256(f"{old} {comment}".encode()).hexdigest()
        for document in copy.glob("*.json"):
            document.write_text(document.read_text().replace(old, new))
        return new

    (home,) = [path.parent for path in copy.glob("asset.*/handler.py") if 'runtime="onnx"' in path.read_text()]
    (home / "handler.py").write_text((home / "handler.py").read_text() + code + f"# {comment}\n")
    home.rename(copy / f"asset.{rename(home.name.removeprefix('asset.'))}")
    assets = json.loads((copy / "perch-serving.assets.json").read_text())["files"]
    (template,) = [name for name, asset in assets.items() if asset["source"]["path"] == "perch-serving.template.json"]
    rename(template)
    return copy


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an HTTP request gave."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str:
        return str(self.body.get("error") or self.body.get("message") or "")


@dataclass(kw_only=True)
class Traffic:
    """The answers of a stretch of traffic: versions with the revisions that gave them, and the failures."""

    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: list[Answer] = field(default_factory=list)
    routed: list[Routing] = field(default_factory=list)

    @property
    def versions(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (version, _), count in self.served.items():
            found[version] += count
        return found


@dataclass(kw_only=True)
class Trial:
    """One deployed cloud and what a test does with it."""

    cloud: LocalCloud
    outputs: dict[str, str]
    assembly: Path
    registry: Registry
    functions: Functions
    bucket: str
    news: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    connection: HTTPConnection | None = None
    clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def on(cls, cloud: LocalCloud, assembly: Path) -> Self:
        """Take a cloud on which an assembly was deployed, by whatever tool, into a test's hands."""
        stacks = cloud.client("cloudformation").describe_stacks()["Stacks"]
        outputs = {o["OutputKey"]: o["OutputValue"] for stack in stacks for o in stack.get("Outputs", ())}
        return cls(
            cloud=cloud,
            outputs=outputs,
            assembly=assembly,
            registry=Registry(cloud.client("dynamodb"), outputs["RegistryTable"]),
            functions=Functions(cloud.client("lambda")),
            bucket=outputs["StoreBucket"],
            news=_subscribe(cloud),
        )

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service; making one takes a while, so each is made once."""
        if service not in self.clients:
            self.clients[service] = self.cloud.client(service)
        return self.clients[service]

    @property
    def world(self) -> World:
        """The use cases, as the `perch` command reaches them."""
        trial = self

        class Here(Clients):
            def __getattribute__(self, name: str) -> Any:
                service = {"lambda_": "lambda", "session": None}.get(name, name)
                return super().__getattribute__(name) if name.startswith("_") else trial.client(service)

        settings = next(self.assembly.glob("asset.*/python/perch_settings/endpoints.json")).read_text()
        return make_world(Here(), load_settings(settings), table=self.outputs["RegistryTable"], bucket=self.bucket)

    # -- doing --------------------------------------------------------------------------------------------------------

    def new_version(self) -> str:
        """Return a version name that nobody used."""
        return f"v{next(self.numbers)}"

    def put(self, key: str, data: bytes) -> None:
        """Upload with a plain S3 PUT."""
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=data)

    def upload(self, endpoint: str, favourite: int = 0, *, fragile: bool = False, version: str | None = None) -> str:
        """Upload a model for an endpoint; return its version."""
        version = version or self.new_version()
        self.put(
            f"models/{endpoint}/{version}/{FILE.get(endpoint, 'model.onnx')}",
            artifact(endpoint, favourite, fragile=fragile),
        )
        return version

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        signed: bool = True,
        json_body: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one HTTP request to the API."""
        url = urlsplit(self.cloud.gateway_url)
        kind = {"Content-Type": "application/json"} if body is not None and json_body else {}
        aws = AWSRequest(method, f"{self.cloud.gateway_url}{path}", data=body, headers=kind | dict(headers or {}))
        if signed:
            SigV4Auth(Credentials(KEY, KEY), "execute-api", REGION).add_auth(aws)
        sent = {**dict(aws.headers.items()), "Host": url.netloc}
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = HTTPConnection(url.hostname or "", url.port, timeout=300)
            try:
                self.connection.request(method, path, body=body, headers=sent)
                answer = self.connection.getresponse()
                data = answer.read()
                break
            except (ConnectionError, OSError):
                self.connection.close()
                self.connection = None
                if attempt == 2:
                    raise
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, body=json.loads(data or b"{}"), headers=told)

    def predict(self, endpoint: str, rows: Sequence[Sequence[float]] = (ORDINARY,)) -> Answer:
        """Ask an endpoint for predictions."""
        body = json.dumps({"features": [list(row) for row in rows]}).encode()
        return self.request("POST", f"/models/{quote(endpoint)}/predict", body)

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass without traffic."""
        self.cloud.advance(seconds)

    def live_traffic(
        self,
        endpoint: str,
        until: Callable[[], bool],
        *,
        rows: Sequence[Sequence[float]] = (ORDINARY,),
        each: int = 10,
        limit_s: float = 1800,
        patient: bool = False,
    ) -> Traffic:
        """Send `each` requests every twenty seconds, the rows in turn, until something holds.

        With `patient` it need not: then the time is over.
        """
        traffic, turns = Traffic(), itertools.cycle(rows)
        for _ in range(int(limit_s / STEP_S)):
            if until():
                return traffic
            routing = self.alias(endpoint)
            if not traffic.routed or traffic.routed[-1] != routing:
                traffic.routed.append(routing)
            for _ in range(each):
                answer = self.predict(endpoint, [next(turns)])
                if answer.status == 200:
                    traffic.served[answer.body["version"], answer.body["revision"]] += 1
                else:
                    traffic.failed.append(answer)
            self.cloud.advance(STEP_S)
        if patient:
            return traffic
        raise AssertionError(f"not within {limit_s:.0f} s:\n{self.story(endpoint)}")

    def wait(self, until: Callable[[], bool], endpoint: str, *, limit_s: float = 1800) -> None:
        """Let time pass until something holds."""
        for _ in range(int(limit_s / STEP_S)):
            if until():
                return
            self.cloud.advance(STEP_S)
        raise AssertionError(f"not within {limit_s:.0f} s:\n{self.story(endpoint)}")

    def at_rest(self, endpoint: str) -> str:
        """Bring an endpoint to a stable version, of the code that is deployed, with no rollout under way.

        Return that version.
        """
        self.cloud.machinery.bus.faults = DeliveryFaults()
        if self.state(endpoint).stable is None and not self.busy(endpoint):
            self.upload(endpoint)
        self.live_traffic(endpoint, lambda: not self.busy(endpoint) and self._serves_what_is_deployed(endpoint))
        return self.stable(endpoint)

    def at_rest_by_hand(self, endpoint: str) -> str:
        """Bring an endpoint whose steps wait for somebody to a stable version: take what is under way back."""
        if self.state(endpoint).stable is None and not self.busy(endpoint):
            self.upload(endpoint)
        if self.state(endpoint).rollout:
            abort(self.world, endpoint, reason="the next test", actor="test", now=self.cloud.clock.now())
        self.wait(lambda: not self.busy(endpoint) and bool(self.stable(endpoint)), endpoint)
        return self.stable(endpoint)

    def _serves_what_is_deployed(self, endpoint: str) -> bool:
        stable = self.state(endpoint).stable
        return (
            stable is not None and stable.fingerprint == self.functions.configuration(f"perch-{endpoint}").fingerprint
        )

    # -- looking ------------------------------------------------------------------------------------------------------

    def state(self, endpoint: str) -> Endpoint:
        return self.registry.endpoint(endpoint)

    def busy(self, endpoint: str) -> bool:
        state = self.state(endpoint)
        return bool(state.rollout or state.queue) or self.registry.last_number(endpoint) > state.considered

    def stable(self, endpoint: str) -> str:
        """Return the version that is stable, "" for none."""
        stable = self.state(endpoint).stable
        return stable.pointer.version if stable and stable.pointer else ""

    def phase(self, endpoint: str) -> str:
        rollout = self.state(endpoint).rollout
        return rollout.phase.value if rollout else ""

    def alias(self, endpoint: str) -> Routing:
        return self.functions.alias(f"perch-{endpoint}").routing

    def ledger(self, endpoint: str, *, after: int = 0) -> list[Entry]:
        """Return the ledger after an entry; the whole of it must be unbroken, and every entry have a reason."""
        whole = self.registry.ledger(endpoint)
        assert broken_at(whole) is None
        assert all(entry.reason.strip() for entry in whole)
        return [entry for entry in whole if entry.seq > after]

    def kinds(self, endpoint: str, *, after: int = 0) -> list[str]:
        return [entry.kind for entry in self.ledger(endpoint, after=after)]

    def story(self, endpoint: str) -> str:
        """Tell what happened to an endpoint, for the message of a test that failed."""
        state = self.state(endpoint)
        lines = [f"{e.at:%H:%M:%S} {e.kind}: {e.reason}" for e in self.registry.ledger(endpoint)[-15:]]
        return "\n".join([f"now {self.cloud.clock.now():%H:%M:%S} {self.alias(endpoint)} {state.rollout}", *lines])

    def announced(self) -> list[dict[str, Any]]:
        """Return Perch's events since the last look, as a subscriber's queue got them."""
        queue, found = self.client("sqs"), []
        while messages := queue.receive_message(QueueUrl=self.news, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                queue.delete_message(QueueUrl=self.news, ReceiptHandle=message["ReceiptHandle"])
        return found

    def alarm_history(self, prefix: str) -> list[dict[str, Any]]:
        """Return what happened to alarms, oldest first."""
        pages = self.client("cloudwatch").describe_alarm_history(ScanBy="TimestampAscending", MaxRecords=100)
        return [item for item in pages["AlarmHistoryItems"] if item["AlarmName"].startswith(prefix)]

    def counted(self, metric: str, dimensions: dict[str, str], namespace: str = "AWS/Lambda") -> int:
        """Return the sum of a metric over the last three hours, as CloudWatch counts."""
        now = self.cloud.clock.now()
        found = self.client("cloudwatch").get_metric_statistics(
            Namespace=namespace, MetricName=metric, Statistics=["Sum"], Period=60,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=now.timestamp() - 3 * 3600, EndTime=now.timestamp() + 60,
        )  # fmt: skip
        return int(sum(point["Sum"] for point in found["Datapoints"]))


@contextmanager
def trial(assembly: Path, state: Path, *, patience: float = PATIENCE) -> Iterator[Trial]:
    """Deploy an assembly on a local cloud of its own; time stands still except where a test moves it.

    Tests whose functions take too long ask for less patience.
    """
    with LocalCloud.running(CloudOptions(state=state, start=START, patience=patience)) as cloud:
        cloud.deploy(assembly)
        yield Trial.on(cloud, assembly)


def _subscribe(cloud: LocalCloud) -> str:
    """Let a queue have every event of Perch's; return its URL."""
    queue = cloud.client("sqs").create_queue(QueueName="news")["QueueUrl"]
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    events = cloud.client("events")
    events.put_rule(Name="news", EventPattern=json.dumps({"source": ["perch"]}))
    events.put_targets(Rule="news", Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])
    return str(queue)
