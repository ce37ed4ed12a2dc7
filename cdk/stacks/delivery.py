"""The delivery stack: what registers uploads, drives rollouts, rolls them back and checks health; and what wakes it.

    upload ──► register_model ──► event ──► drive_rollouts  ◄── every tick
    alarms ──► roll_back                    replay_requests ◄── every tick, if any rollout replays requests
                                            check_health    ◄── every so often, for each endpoint

The stack knows the predictors by their names only. What each function may do stands in `grants.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import CfnOutput, Duration, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk.constructs.alarms import (
    AlarmPermission,
    ControlAlarms,
    ControlAlarmsProps,
    EndpointAlarms,
    EndpointAlarmsProps,
)
from cdk.constructs.control_function import ControlFunction, ControlFunctionProps
from cdk.constructs.dead_letters import DeadLetters
from cdk.constructs.layer_shelf import SETTINGS, LayerShelf, LayerShelfProps
from cdk.constructs.wake import Wake, WakeProps
from cdk.package_layer import PACKAGE
from cdk.settings import Endpoint, Settings
from cdk.stacks.grants import (
    Resources,
    grant_check_health,
    grant_drive_rollouts,
    grant_register_model,
    grant_replay_requests,
    grant_roll_back,
)


@dataclass(frozen=True, kw_only=True)
class DeliveryStackProps:
    """What delivery works on: the model store, the registry, and the topic that its alarms tell."""

    root: Path
    settings: Settings
    store: s3.IBucket
    table: dynamodb.ITable
    topic: sns.ITopic


class DeliveryStack(Stack):
    """The control side of Perch."""

    def __init__(self, scope: Construct, id_: str, *, props: DeliveryStackProps) -> None:
        super().__init__(scope, id_, description="Perch: registration, rollouts, health checks")
        self._props = props
        self._layers = LayerShelf(self, "Layers", props=LayerShelfProps(root=props.root, settings=props.settings))
        self._dead_letters = DeadLetters(self, "DeadLetters").queue

        self.register_model = self._function(
            "register-model",
            "Checks each upload and registers it as an immutable model version, or says why not",
            memory_mb=_to_inspect(max(endpoint.max_artifact_mb for endpoint in props.settings.endpoints)),
            timeout=Duration.minutes(5),
            takes=(PACKAGE, "powertools", SETTINGS, "onnx"),
        )
        self.roll_back = self._function(
            "roll-back", "Puts all traffic back on the stable revision when an alarm goes off"
        )
        self.drive_rollouts = self._function(
            "drive-rollouts",
            "Moves each rollout one step nearer to its end, on evidence",
            memory_mb=512,
            timeout=Duration.seconds(50),
            environment={"PERCH_ROLL_BACK_ARN": self.roll_back.function.function_arn},
            max_event_age=Duration.minutes(5),
        )
        self.check_health = self._function(
            "check-health",
            "Sends golden requests to the revisions of an endpoint",
            timeout=Duration.minutes(2),
            max_event_age=Duration.minutes(15),
        )
        self.replay_requests = self._function(
            "replay-requests",
            "Sends captured requests to candidates that no user meets, and compares the answers",
            memory_mb=512,
            timeout=Duration.minutes(2),
            max_event_age=Duration.minutes(5),
        )
        self._wake()
        self._watch()
        self._grant()

        CfnOutput(self, "DeadLetterQueueUrl", value=self._dead_letters.queue_url)

    def _function(
        self,
        verb: str,
        description: str,
        *,
        memory_mb: int = 256,
        timeout: Duration | None = None,
        takes: tuple[str, ...] = (PACKAGE, "powertools", SETTINGS),
        environment: dict[str, str] | None = None,
        max_event_age: Duration | None = None,
    ) -> ControlFunction:
        props, settings = self._props, self._props.settings
        return ControlFunction(
            self,
            verb.title().replace("-", ""),
            props=ControlFunctionProps(
                root=props.root,
                name=settings.name,
                verb=verb,
                description=description,
                layers=self._layers,
                architecture=settings.architecture,
                log_days=settings.log_days,
                takes=takes,
                environment={
                    "PERCH_TABLE": props.table.table_name,
                    "PERCH_STORE": props.store.bucket_name,
                    **(environment or {}),
                },
                memory_mb=memory_mb,
                timeout=timeout or Duration.seconds(30),
                dead_letters=self._dead_letters,
                max_event_age=max_event_age or Duration.hours(6),
            ),
        )

    def _wake(self) -> None:
        settings = self._props.settings
        self._on(
            "Uploads",
            self.register_model,
            # Every key, also those outside models/: they are refused in words rather than ignored.
            events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [self._props.store.bucket_name]}},
            ),
        )
        self._on(
            "Registrations",
            self.drive_rollouts,
            events.EventPattern(source=["perch"], detail_type=["ModelVersionRegistered"]),
            saying=_WHEN_IT_CAME,
        )
        self._on(
            "GateAnswers",
            self.drive_rollouts,
            events.EventPattern(source=["perch.hooks"], detail_type=["GateAnswered"]),
            saying=_WHEN_IT_CAME,
        )
        self._on(
            "AlarmsGoingOff",
            self.roll_back,
            events.EventPattern(
                source=["aws.cloudwatch"],
                detail_type=["CloudWatch Alarm State Change"],
                detail={"alarmName": [{"prefix": f"{settings.name}/"}], "state": {"value": ["ALARM"]}},
            ),
        )
        self._every("Tick", self.drive_rollouts, settings.tick_s, None)
        if any(_replays(endpoint) for endpoint in settings.endpoints):
            self._every("Replay", self.replay_requests, settings.tick_s, None)
        for endpoint in settings.endpoints:
            saying = {"endpoint": endpoint.name, "time": events.EventField.time}
            self._every(
                f"Health-{endpoint.name}",
                self.check_health,
                endpoint.health_check_s,
                events.RuleTargetInput.from_object(saying),
            )

    def _on(
        self,
        id_: str,
        woken: ControlFunction,
        pattern: events.EventPattern,
        *,
        saying: events.RuleTargetInput | None = None,
    ) -> None:
        props = WakeProps(
            function=woken.function,
            description=f"{id_}: on the event",
            dead_letters=self._dead_letters,
            on=pattern,
            saying=saying,
        )
        Wake(self, id_, props=props)

    def _every(self, id_: str, woken: ControlFunction, seconds: int, saying: events.RuleTargetInput | None) -> None:
        props = WakeProps(
            function=woken.function,
            description=f"{id_}: on the clock",
            dead_letters=self._dead_letters,
            every=seconds,
            saying=saying,
            # The next one comes anyway; an old one is only noise.
            stale_after=Duration.seconds(max(60, min(seconds, 3_600))),
        )
        Wake(self, id_, props=props)

    def _watch(self) -> None:
        settings, topic_arn = self._props.settings, self._props.topic.topic_arn
        AlarmPermission(self, "AlarmsMayRollBack", name=settings.name, function=self.roll_back.function)
        for endpoint in settings.endpoints:
            EndpointAlarms(
                self,
                f"Alarms-{endpoint.name}",
                props=EndpointAlarmsProps(
                    name=settings.name,
                    endpoint=endpoint,
                    roll_back_arn=self.roll_back.function.function_arn,
                    topic_arn=topic_arn,
                ),
            )
        ControlAlarms(
            self,
            "ControlAlarms",
            props=ControlAlarmsProps(
                name=settings.name,
                tick_s=settings.tick_s,
                driver_name=f"{settings.name}-drive-rollouts",
                dead_letters=self._dead_letters,
                topic_arn=topic_arn,
            ),
        )

    def _grant(self) -> None:
        props = self._props
        resources = Resources(
            stack=self,
            name=props.settings.name,
            store=props.store,
            table=props.table.table_arn,
            predictors=[f"{props.settings.name}-{endpoint.name}" for endpoint in props.settings.endpoints],
        )
        grant_register_model(self.register_model.execution, resources)
        grant_drive_rollouts(self.drive_rollouts.execution, resources)
        grant_roll_back(self.roll_back.execution, resources)
        grant_check_health(self.check_health.execution, resources)
        grant_replay_requests(self.replay_requests.execution, resources)


def _replays(endpoint: Endpoint) -> bool:
    """Whether a rollout of the endpoint may ask for replays: nobody is woken each minute for nothing."""
    return bool(endpoint.rollout.paired) or any(step.weight == 0 for step in endpoint.rollout.steps)


def _to_inspect(artifact_mb: int) -> int:
    """Return the memory, in MB, that inspecting an artifact takes.

    Measured: 824 MB for 200, 1,206 for 300, since protobuf and the checker hold copies of their own. 1,024 is also
    enough for a model that no endpoint declares, which may have 200.
    """
    needed = math.ceil((512 + 4.2 * artifact_mb) / 64) * 64
    return min(max(needed, 1_024), 10_240)


# Whoever puts an event says its `time`; the time at which EventBridge got it is EventBridge's own word.
_WHEN_IT_CAME = events.RuleTargetInput.from_object(
    {
        "source": events.EventField.source,
        "detail-type": events.EventField.detail_type,
        "detail": events.EventField.from_path("$.detail"),
        "time": "<aws.events.event.ingestion-time>",
    }
)
