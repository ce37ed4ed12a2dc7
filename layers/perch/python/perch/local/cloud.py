"""The local cloud: everything that a deployment of Perch meets on AWS, in one process tree on this machine.

    moto's server (the AWS API, made strict)      HTTP gateway (the routes of the template)
            │                                              │
            └── functions, routes ──► data plane ◄─────────┘      worker processes run the real handlers
                                          │
                metrics, logs ◄───────────┘        event bus · schedules · alarms on one virtual clock

`LocalCloud` puts the parts together and knows their order; each part says itself what it does and what it leaves out.
State lives in memory and goes when the process does.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Self

import boto3
from moto.server import ThreadedMotoServer

from perch.local import strict
from perch.local.access import ACCOUNT, KEY, REGION, local_environment
from perch.local.clock import VirtualClock
from perch.local.compute import DataPlane
from perch.local.control import Control
from perch.local.deploy.assembly import read_assembly
from perch.local.deploy.deployment import Deployed, deploy
from perch.local.gateway import Gateway
from perch.local.machinery import Machinery
from perch.local.metrics.store import MetricStore
from perch.local.sessions import make_session


@dataclass(frozen=True, kw_only=True)
class CloudOptions:
    """How a local cloud is to be.

    Ports of 0 mean any free one. `speed` is virtual seconds a real second once it runs; `seed` decides which requests a
    weighted alias sends where. `settle_s` is how long (virtual) a new function version stays Pending. `state` is the
    folder for unpacked code and images. `workers` limits the processes of one function version. `patience` is how many
    times its limits a function may really take: where time is stepped, a machine that is busy then changes nothing.
    """

    api_port: int = 0
    gateway_port: int = 0
    start: datetime | None = None
    speed: float = 1.0
    seed: int = 0
    settle_s: float = 2.0
    state: Path = Path(".perch/local")
    workers: int = 2
    patience: float = 1.0


class LocalCloud:
    """A running local cloud; make it with `LocalCloud.running`.

    Attributes:
        api_url: The AWS API (`AWS_ENDPOINT_URL`).
        gateway_url: Where the deployed HTTP API answers.
        control_url: Where the clock is read and moved.
        clock: The one clock.
        machinery: Bus, alarms, metrics and the asynchronous queue.
        dataplane: The worker processes.
    """

    def __init__(self, options: CloudOptions | None = None) -> None:
        self.options = options or CloudOptions()
        start, patience = self.options.start or datetime.now(UTC), self.options.patience
        self.clock = VirtualClock(start, speed=self.options.speed, patience_s=60 * patience)
        self.api_url = self.gateway_url = self.control_url = ""
        self._parts = ExitStack()

    @classmethod
    @contextmanager
    def running(cls, options: CloudOptions | None = None) -> Iterator[Self]:
        """Start a local cloud with nothing deployed on it, and stop it at the end."""
        cloud = cls(options)
        cloud.start()
        try:
            yield cloud
        finally:
            cloud.stop()

    def start(self) -> None:
        """Bring the parts up; the clock stands still until `run` or `advance`.

        Raises:
            OSError: a port is taken.
        """
        with ExitStack() as parts:
            self._start(parts)
            self._parts = parts.pop_all()

    def _start(self, parts: ExitStack) -> None:
        # The data plane's thread is busy under traffic; at Python's 5 ms, every API call would wait for it in turn.
        sys.setswitchinterval(0.0005)
        settings = self._start_api(parts)
        self._start_functions(parts, settings)
        self._start_gateway(parts, settings)
        addresses = {"api_url": self.api_url, "gateway_url": self.gateway_url}
        control = Control(self.clock, self.advance, addresses, self.options.state)
        self.control_url = control.start()
        parts.callback(control.stop)

    def _start_api(self, parts: ExitStack) -> strict.StrictSettings:
        """Make moto strict, and let it answer; what answers later is told to the settings."""
        options = self.options
        settings = strict.install(
            strict.StrictSettings(
                clock=self.clock,
                settle_s=options.settle_s,
                random=Random(options.seed),  # noqa: S311 - routes requests, guards nothing
                cache=options.state / "code",
                image_store=self.image_store,
            )
        )
        parts.callback(strict.uninstall)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a call would drown everything else
        server = ThreadedMotoServer("127.0.0.1", options.api_port, verbose=False)
        server.start()
        parts.callback(server.stop)
        # moto's CloudFormation reads templates over this URL, and knows its own host only by this name.
        self.api_url = f"http://localhost:{server.get_host_and_port()[1]}"
        _reset(self.api_url)
        return settings

    def _start_functions(self, parts: ExitStack, settings: strict.StrictSettings) -> None:
        """Start what runs functions, and what wakes them."""
        options, store, functions = self.options, MetricStore(), strict.MotoFunctions()
        self.dataplane = DataPlane(
            functions,
            self.clock,
            store,
            strict.MotoLogSink(),
            max_workers=options.workers,
            environment={"AWS_ENDPOINT_URL": self.api_url, "POWERTOOLS_DEV": "false"},
            region=REGION,
            patience=options.patience,
            random=Random(options.seed),  # noqa: S311 - names requests
        )
        self.dataplane.start()
        parts.callback(self.dataplane.stop)

        self.machinery = Machinery(
            self.dataplane,
            functions.async_settings,
            clock=self.clock,
            check=functions.find,
            account=ACCOUNT,
            region=REGION,
            store=store,
        )
        settings.invoker, settings.async_invoker = self.dataplane, self.machinery.asynchronous
        self.machinery.start()
        parts.callback(self.machinery.stop)

    def _start_gateway(self, parts: ExitStack, settings: strict.StrictSettings) -> None:
        gateway = Gateway(
            self.dataplane,
            strict.MotoRoutes(),
            self.clock,
            credentials={KEY: KEY},
            account_id=ACCOUNT,
            region=REGION,
        )
        self.gateway_url = gateway.start("127.0.0.1", self.options.gateway_port).replace("127.0.0.1", "localhost")
        settings.api_url = self.gateway_url
        parts.callback(gateway.stop)

    def stop(self) -> None:
        """Stop every part and kill every worker process."""
        self._parts.close()

    # -- using it -------------------------------------------------------------------------------------------------

    @property
    def image_store(self) -> Path:
        """Where container images (their files, not layers) are kept."""
        return (self.options.state / "images").resolve()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead any AWS tool here."""
        return local_environment(self.api_url)

    def session(self) -> boto3.Session:
        """Return a boto3 session that reaches this cloud (its clients need `endpoint_url=cloud.api_url`)."""
        return make_session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=REGION)

    def client(self, service: str) -> Any:
        """Return a boto3 client of one service."""
        return self.session().client(service, endpoint_url=self.api_url)  # type: ignore[call-overload]

    def deploy(self, assembly: Path, on_progress: Callable[[str], None] = lambda _: None) -> Deployed:
        """Deploy a synthesized cloud assembly (`cdk.out`).

        Raises:
            DeploymentFailed, DeploymentIncomplete: a stack failed, or a resource of a template was not made.
        """
        return deploy(
            read_assembly(assembly, account=ACCOUNT, region=REGION),
            self.client,
            image_store=self.image_store,
            account=ACCOUNT,
            region=REGION,
            on_progress=on_progress,
        )

    def run(self) -> None:
        """Let time run at `speed`."""
        self.machinery.run()

    def advance(self, seconds: float) -> None:
        """Step time, firing what is due on the way and waiting for its effects; a running clock runs on afterwards.

        Raises:
            ClockStuckError: something that a timer started does not end.
        """
        running = self.clock.running
        self.clock.stop()
        try:
            self.machinery.advance(seconds)
        finally:
            if running:
                self.clock.run()


def _reset(api_url: str) -> None:
    """Forget what an earlier local cloud of this process left in moto's backends."""
    from urllib.request import Request, urlopen  # noqa: PLC0415 - once, at start

    urlopen(Request(f"{api_url}/moto-api/reset", method="POST"), timeout=30).close()  # noqa: S310 - our own server


os.environ.setdefault("MOTO_CALL_RESET_API", "false")

__all__ = ["ACCOUNT", "KEY", "REGION", "CloudOptions", "LocalCloud", "local_environment"]
