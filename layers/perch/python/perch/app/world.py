"""The composition root: what the use cases need of the world, made once per process.

Handlers make it from their environment, the `perch` command from the stacks it finds, tests from what they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from perch.aws.alarms import Alarms
from perch.aws.bus import Bus
from perch.aws.clients import Clients
from perch.aws.evidence import RevisionMetrics
from perch.aws.experiments import Experiments
from perch.aws.functions import Functions
from perch.aws.logs import Logs
from perch.aws.registry import Registry
from perch.aws.store import Store
from perch.aws.variants import VariantMetrics
from perch.domain.names import function_name
from perch.domain.policy import Settings, load_settings


@dataclass(frozen=True, kw_only=True)
class World:
    """Settings and services. `settings.name` prefixes every resource of the deployment."""

    settings: Settings
    registry: Registry
    store: Store
    functions: Functions
    metrics: RevisionMetrics
    alarms: Alarms
    bus: Bus
    logs: Logs
    experiments: Experiments
    variants: VariantMetrics

    def function(self, endpoint: str) -> str:
        """Return the name of an endpoint's predictor function."""
        return function_name(self.settings.name, endpoint)


def make_world(
    clients: Clients, settings: Settings, *, table: str, bucket: str, alarm_actions: tuple[str, ...] = ()
) -> World:
    """Wire the services of one deployment."""
    return World(
        settings=settings,
        registry=Registry(clients.dynamodb, table),
        store=Store(clients.s3, bucket),
        functions=Functions(clients.lambda_),
        metrics=RevisionMetrics(clients.cloudwatch),
        alarms=Alarms(clients.cloudwatch, name=settings.name, actions=alarm_actions),
        bus=Bus(clients.events),
        logs=Logs(clients.logs),
        experiments=Experiments(clients.dynamodb, table),
        variants=VariantMetrics(clients.cloudwatch),
    )


def world_of(environment: Mapping[str, str]) -> World:
    """Wire the services of a deployed function from its environment variables and its settings layer."""
    roll_back = environment.get("PERCH_ROLL_BACK_ARN")
    return make_world(
        Clients(),
        load_settings(resources.files("perch_settings").joinpath("endpoints.json").read_text()),
        table=environment["PERCH_TABLE"],
        bucket=environment["PERCH_STORE"],
        alarm_actions=(roll_back,) if roll_back else (),
    )
