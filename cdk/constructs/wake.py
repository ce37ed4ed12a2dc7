"""What wakes the control functions: rules on the default event bus.

An event that cannot be delivered goes to the dead-letter queue; so does one that the function, awake, fails on three
times (that is the function's own doing, see control_function.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct


@dataclass(frozen=True, kw_only=True)
class WakeProps:
    """Wake `function` on every event that matches `on`, or `every` so many seconds; one of the two.

    `saying` is the payload; the event itself when it is None. `stale_after` bounds how long delivery is tried.
    """

    function: lambda_.IFunction
    description: str
    dead_letters: sqs.IQueue
    on: events.EventPattern | None = None
    every: int | None = None
    saying: events.RuleTargetInput | None = None
    stale_after: Duration | None = None


class Wake(Construct):
    """One rule with one target, which it may call."""

    rule: events.Rule

    def __init__(self, scope: Construct, id_: str, *, props: WakeProps) -> None:
        super().__init__(scope, id_)
        self.rule = events.Rule(
            self,
            "Rule",
            description=props.description,
            event_pattern=props.on,
            schedule=events.Schedule.rate(Duration.minutes(props.every // 60)) if props.every else None,
            targets=[
                targets.LambdaFunction(
                    props.function,
                    dead_letter_queue=props.dead_letters,
                    event=props.saying,
                    max_event_age=props.stale_after,
                )
            ],
        )
