"""The demo: four versions of a model meet live traffic, and only two of them stay.

    train ─► local cloud ─► deploy the synthesized templates ─► v1: direct ─► traffic, from here to the end
                                                                v2: step by step, promoted
                                                                v3: raises on two scans in five, back by its alarm
                                                                v4: raises on one in forty, back by the judge

Two models go through it side by side, one on each kind of function; v4 is shown with one of them.
Everything goes through the front doors: uploads are S3 PUTs, requests are HTTP through the API, and what is told at the
end is read from the registry's ledger and from the answers that the traffic got. Only the clock is special: a day of
rollout passes in a minute, and slowly when a broken version is out, so that one can watch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status

from examples.digits.audience import Audience
from examples.digits.summary import Expectation, Tried, expectations, show
from examples.digits.train import FILES, VERSIONS, Kind, Version, train
from perch.aws.registry import Registry
from perch.domain.rollout import Phase
from perch.local.cloud import CloudOptions, LocalCloud
from perch.local.deploy.synthesis import synthesize

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "examples" / "digits" / "perch.toml"
STATE = Path(".perch/local")
MODELS: Mapping[str, Kind] = {"digits": "onnx", "digits-torch": "torch"}
SUBTLE = "digits"  # the one that v4 is shown with
RATE = 160.0  # requests a second, both endpoints together
# Virtual seconds a real second; at the last, a minute is long enough for an alarm to have something to look at.
FAST, BRISK, SLOW = 3600.0, 600.0, 10.0
PATIENCE_S = 240.0  # real time for any one chapter


class DemoFailed(Exception):
    """A chapter did not come to its end."""


@dataclass
class Stage:
    """What the chapters share."""

    console: Console
    cloud: LocalCloud
    registry: Registry
    bucket: str
    audience: Audience | None = None
    began: float = field(default_factory=time.monotonic)

    def upload(self, version: Version, *models: str) -> None:
        """Put one version of some models (or of each) into the store, as anybody would."""
        for model in models or MODELS:
            kind = MODELS[model]
            key = f"models/{model}/{version}/{FILES[kind]}"
            self.cloud.client("s3").put_object(Bucket=self.bucket, Key=key, Body=train(kind, version))
            self.console.print(f"  [cyan]PUT[/] s3://{self.bucket}/{key}")

    def wait(self, title: str, until: Callable[[str], bool], *endpoints: str) -> None:
        """Let the world go on until some endpoints (or each) satisfy `until`, showing what happens meanwhile."""
        limit, told = time.monotonic() + PATIENCE_S, 0.0
        with moving(self.console, title) as tell:
            while not all(until(endpoint) for endpoint in endpoints or MODELS):
                if self.audience:
                    self.audience.check()
                if time.monotonic() > limit:
                    raise DemoFailed(f"{title}: not within {PATIENCE_S:.0f} seconds; {self.line()}")
                if (now := time.monotonic()) - told >= 1:
                    told = now
                    tell(self.line())
                time.sleep(0.2)

    def line(self) -> str:
        """Say in one line what time it is, who serves, and what was answered."""
        parts = [f"{self.cloud.clock.now():%a %H:%M}"]
        for endpoint in MODELS:
            state = self.registry.endpoint(endpoint)
            text = state.stable.pointer.version if state.stable and state.stable.pointer else "nothing"
            if state.rollout:
                rollout = state.rollout
                share = f" {rollout.current_step.weight:.0%}" if rollout.phase is Phase.SHIFTING else ""
                text += f" ({rollout.candidate.pointer.version} {rollout.phase.value}{share})"
            parts.append(f"{endpoint}: {text}")
        if self.audience:
            parts.append(f"{self.audience.total:,} requests, {self.audience.failed} failed")
        return " · ".join(parts)

    def try_out(self, version: Version, model: str, *, speed: float, title: str) -> Tried:
        """Upload a version that will be taken back; let time pass at `speed` from its first traffic to that moment."""
        answers, clock = self.answers(model), self.cloud.clock
        clock.speed, since = BRISK, len(answers)
        self.upload(version, model)
        self.wait("registered, probed", self.tries(version), model)
        clock.speed = speed
        self.wait(title, self.taken_back, model)
        clock.speed = BRISK
        self.wait("closing the rollout", self.serves("v2"), model)
        return Tried(version=version, endpoint=model, since=since, until=len(answers))

    def answers(self, model: str) -> list[str]:
        """Return who answered each request to an endpoint so far, a list that grows."""
        assert self.audience is not None  # noqa: S101 - there is traffic
        return self.audience.seen[model].order

    # -- what is waited for ---------------------------------------------------------------------------------------

    def serves(self, version: str) -> Callable[[str], bool]:
        """Whether an endpoint's stable revision is of a version, with no rollout under way."""

        def so(endpoint: str) -> bool:
            state = self.registry.endpoint(endpoint)
            pointer = state.stable.pointer if state.stable else None
            return pointer is not None and pointer.version == version and state.rollout is None and not state.queue

        return so

    def taken_back(self, endpoint: str) -> bool:
        """Whether the traffic of a candidate was taken back, or there is none."""
        rollout = self.registry.endpoint(endpoint).rollout
        return rollout is None or rollout.phase is Phase.ROLLING_BACK

    def tries(self, version: str) -> Callable[[str], bool]:
        """Whether a version has had traffic; one that was refused before never will."""

        def so(endpoint: str) -> bool:
            for rollout in self.registry.rollouts(endpoint, limit=1):
                if rollout.candidate.pointer.version == version:
                    if rollout.phase is Phase.REFUSED:
                        raise DemoFailed(f"{version} of {endpoint} was refused: {rollout.reason}")
                    return rollout.shifted_at is not None
            return False

        return so


def run(*, keep: bool = False) -> int:
    """Tell the whole story; return 0 only if every expectation held."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    try:
        with _local_cloud(console) as stage:
            started = stage.cloud.clock.now()
            checked = _play(stage, started)
            console.print(f"\n{time.monotonic() - began:.0f} real seconds in all.")
            failed = [e for e in checked if not e.held]
            if keep and not failed:
                _keep(stage)
            return 1 if failed else 0
    except DemoFailed as error:
        console.print(f"[bold red]The demo did not come to its end.[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


def _play(stage: Stage, started: datetime) -> list[Expectation]:
    console, cloud = stage.console, stage.cloud
    console.print("\n[bold]1. The first version[/] goes live directly: there is nothing to compare it with.")
    stage.upload("v1")
    cloud.clock.speed = BRISK
    cloud.run()
    stage.wait("registered, probed, going live", stage.serves("v1"))

    environment = {**os.environ, **cloud.environment}
    with Audience(cloud.gateway_url, list(MODELS), rate=RATE, environment=environment) as stage.audience:
        audience = stage.audience
        console.print(f"\n[bold]2. Traffic[/]: held-out digits, {RATE:.0f} requests a second, from now to the end.")
        _answers(stage, 200)

        console.print("\n[bold]3. A better version[/] takes over step by step, each held for hours.")
        stage.upload("v2")
        stage.wait("registered, probed", stage.tries("v2"))
        cloud.clock.speed = FAST
        stage.wait("moving traffic", stage.serves("v2"))
        before_v3 = {endpoint: len(seen.bad) for endpoint, seen in audience.seen.items()}

        console.print("\n[bold]4. A broken version[/]: fine on its probes, it raises on two scans in five.")
        tried = [stage.try_out("v3", model, speed=SLOW, title="a canary, and its alarm") for model in MODELS]

        console.print(
            "\n[bold]5. A version that is only slightly worse[/]: v3 mended in haste, it raises on one scan in forty. "
            "No alarm sees it, the comparison does."
        )
        tried.append(stage.try_out("v4", SUBTLE, speed=BRISK, title="a canary, compared with v2"))

        console.print("\n[bold]6. Afterwards[/]: is everything as it was?")
        marks = {endpoint: len(seen.order) for endpoint, seen in audience.seen.items()}
        _answers(stage, 400)

    show(console, cloud, stage.registry, audience, tried, started=started)
    checked = expectations(cloud, stage.registry, audience, tried, before_v3=before_v3, marks=marks)
    console.print()
    for expectation in checked:
        mark = "[green]✔[/]" if expectation.held else "[bold red]✘[/]"
        console.print(f"{mark} {expectation.text}" + ("" if expectation.held else f": {expectation.detail}"))
    return checked


def _answers(stage: Stage, more: int) -> None:
    """Wait for some more answers on each endpoint."""
    assert stage.audience is not None  # noqa: S101 - there is traffic
    seen = stage.audience.seen
    wanted = {endpoint: len(seen[endpoint].order) + more for endpoint in MODELS}
    stage.wait("answering", lambda endpoint: len(seen[endpoint].order) >= wanted[endpoint])


@contextmanager
def _local_cloud(console: Console) -> Iterator[Stage]:
    with moving(console, "training four versions of two models") as tell:
        for model, kind in MODELS.items():
            for version in VERSIONS if model == SUBTLE else VERSIONS[:-1]:
                tell(f"{model} {version}")
                train(kind, version)
    assembly = (STATE / "demo.cdk.out").resolve()
    with moving(console, "synthesizing the CDK app (the first time it also builds the layers)"):
        synthesize(ROOT, assembly, environment={"PERCH_SETTINGS": str(SETTINGS)})
    with LocalCloud.running(CloudOptions(state=STATE, seed=7, speed=BRISK)) as cloud:
        with moving(console, "deploying the synthesized templates on the local cloud") as tell:
            deployed = cloud.deploy(assembly, tell)
        console.print(f"  AWS API {cloud.api_url} · HTTP API {cloud.gateway_url}")
        yield Stage(
            console=console,
            cloud=cloud,
            registry=Registry(cloud.client("dynamodb"), deployed.output("perch-store", "RegistryTable")),
            bucket=deployed.output("perch-store", "StoreBucket"),
        )


@contextmanager
def moving(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show that something is under way; on a terminal a moving line, elsewhere a plain line every few seconds."""
    began = last = time.monotonic()
    if console.is_terminal:
        with Status(title, console=console) as status:
            yield lambda text: status.update(f"{title} · {text}")
    else:
        console.print(f"  {title} …")

        def tell(text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= 2:
                last = time.monotonic()
                console.print(f"    {text}", soft_wrap=True)

        yield tell
    console.print(f"  {title}: {time.monotonic() - began:.1f} s")


def _keep(stage: Stage) -> None:
    """Leave everything running at the speed of real time, and say what to try."""
    from examples.digits.data import held_out  # noqa: PLC0415 - only here

    scan = STATE / "scan.json"
    scan.write_text(json.dumps({"features": [held_out().features[0].tolist()]}))
    stage.cloud.clock.speed = 1.0
    perch = f"{Path(sys.executable).parent / 'perch'} --local"
    subtle = stage.registry.rollouts(SUBTLE, limit=1)[0].id
    stage.console.print(
        f"\nThe local cloud is still there: AWS API {stage.cloud.api_url}, HTTP API {stage.cloud.gateway_url}.\n"
        f"Try, in another terminal:\n\n"
        f"  {perch} rollouts explain {subtle}\n"
        f"  {perch} predict {SUBTLE} @{scan}\n"
        f'  {perch} rollback {SUBTLE} --reason "to see it go back"\n\n'
        "Ctrl-C stops it.",
        soft_wrap=True,
    )
    while True:
        time.sleep(3600)
