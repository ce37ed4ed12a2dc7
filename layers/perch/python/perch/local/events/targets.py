"""Targets of EventBridge rules: what is sent (input transformation) and where it goes (queues, topics, functions, ...).

`make_input` is pure: the event, or the part that `InputPath` names, or the constant `Input`, or what `InputTransformer`
makes of it. `Sender` puts a text into the SQS queue, SNS topic, Lambda function, log group or bus that an ARN names;
alarm actions, dead letters and Lambda's destinations use it too.

The transformer's rules, as documented: a variable is filled as JSON where it stands alone and as bare text inside a
quoted string, without escaping; a variable whose path is not in the event does not appear in the output; what is valid
JSON is sent compact. JSON paths know dots, dashes, brackets, array indices and `*`.

Left out: targets other than the five (Step Functions, Kinesis, API destinations ...), permissions, FIFO deduplication.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from moto.core.exceptions import ServiceException
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from werkzeug.exceptions import HTTPException

from perch.local.ports import AsyncInvoker, LogSink, Refused

_VARIABLE = re.compile(r"<([A-Za-z0-9_.-]+)>")
_STEP = re.compile(r"\.?([A-Za-z0-9_-]+|\*)|\[(\d+|\*)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")
_NOT_THERE = "\x00not there\x00"  # stands in the template for a variable that has no value, until the JSON is parsed


class UndeliverableError(Exception):
    """A target did not take what was sent; `retry` says whether trying again can help."""

    def __init__(self, code: str, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retry = retry


# -- what is sent ----------------------------------------------------------------------------------------------------


def make_input(
    target: Mapping[str, Any], event: Mapping[str, Any], *, received: str, rule_name: str, rule_arn: str
) -> str:
    """Return the text that a target is sent for an event.

    Args:
        target: The target as PutTargets has it (`Input`, `InputPath`, `InputTransformer`).
        event: The event.
        received: When the bus got it (ISO 8601), for `<aws.events.event.ingestion-time>`: an event's own time is said
            by whoever put it.
        rule_name: The name of the rule, for `<aws.events.rule-name>`.
        rule_arn: Its ARN, for `<aws.events.rule-arn>`.
    """
    if transformer := target.get("InputTransformer"):
        paths = transformer.get("InputPathsMap") or {}
        values = {name: found for name, path in paths.items() if (found := _first(event, path)) is not _NOT_THERE}
        values |= {
            "aws.events.rule-arn": rule_arn,
            "aws.events.rule-name": rule_name,
            "aws.events.event": {name: value for name, value in event.items() if name != "detail"},
            "aws.events.event.json": event,
            "aws.events.event.ingestion-time": received,
        }
        return _fill(transformer["InputTemplate"], values)
    if (constant := target.get("Input")) is not None:
        return str(constant)
    if path := target.get("InputPath"):
        found = _first(event, path)
        return _compact({} if found is _NOT_THERE else found)
    return _compact(event)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    at, quoted = 0, False
    for found in _VARIABLE.finditer(template):
        before = template[at : found.start()]
        quoted ^= len(re.findall(r'(?<!\\)"', before)) % 2 == 1
        value = values.get(found[1], _NOT_THERE)
        if quoted:
            parts += [before, "" if value is _NOT_THERE else value if isinstance(value, str) else _compact(value)]
        else:
            parts += [before, _compact(value)]
        at = found.end()
    text = "".join(parts) + template[at:]
    try:
        return _compact(_without_absent(json.loads(text)))
    except ValueError:
        return text


def _without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_absent(one) for name, one in value.items() if one != _NOT_THERE}
    if isinstance(value, list):
        return [_without_absent(one) for one in value if one != _NOT_THERE]
    return value


def _first(event: Mapping[str, Any], path: str) -> Any:
    """What a JSON path names: a value, or a list where it holds a `*`; `_NOT_THERE` when there is nothing."""
    text = path.strip().removeprefix("$")
    at = 0
    found: list[Any] = [event]
    many = False
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            return _NOT_THERE
        name = next(group for group in step.groups() if group is not None)
        many |= name == "*"
        found = [inner for value in found for inner in _children(value, name)]
        at = step.end()
    if many:
        return found
    return found[0] if found else _NOT_THERE


def _children(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if name == "*":
            yield from value.values()
        elif name in value:
            yield value[name]
    elif isinstance(value, list):
        if name == "*":
            yield from value
        elif name.isdigit() and int(name) < len(value):
            yield value[int(name)]


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# -- where it goes ---------------------------------------------------------------------------------------------------


class Sender:
    """Sends texts to what ARNs name, in this process.

    Args:
        invoker: Takes what goes to Lambda functions.
        put_event: Takes (bus name, entry as PutEvents has it) for what goes to a bus.
        now: The virtual time, for log events.
        account: The account whose resources are meant.
        logs: Takes what goes to log groups; may be set later.
    """

    def __init__(
        self,
        invoker: AsyncInvoker,
        *,
        put_event: Callable[[str, Mapping[str, Any]], object],
        now: Callable[[], datetime],
        account: str = "123456789012",
        logs: LogSink | None = None,
    ) -> None:
        self.logs = logs
        self._invoker = invoker
        self._put_event = put_event
        self._now = now
        self._account = account

    def send(
        self,
        arn: str,
        body: str,
        *,
        attributes: Mapping[str, str | int] | None = None,
        subject: str | None = None,
        group_id: str | None = None,
    ) -> None:
        """Send `body` to the queue, topic, function, log group or bus that `arn` names.

        Args:
            arn: Where to.
            body: The text; JSON for functions.
            attributes: Message attributes for queues and topics; numbers become Number attributes.
            subject: The subject of an SNS message.
            group_id: The message group of a FIFO queue.

        Raises:
            UndeliverableError: It was not taken.
        """
        parts = arn.split(":", 5)
        if len(parts) < 6:
            raise UndeliverableError("INVALID_PARAMETER", f"{arn!r} is not an ARN", retry=False)
        service, region, resource = parts[2], parts[3], parts[5]
        try:
            match service:
                case "lambda":
                    self._send_to_function(arn, body)
                case "sqs":
                    sqs_backends[self._account][region].send_message(
                        resource, body, message_attributes=_for_sqs(attributes), group_id=group_id
                    )
                case "sns":
                    sns_backends[self._account][region].publish(
                        body, arn, subject=subject, message_attributes=_for_sns(attributes)
                    )
                case "logs":
                    self._send_to_log_group(resource, body)
                case "events" if resource.startswith("event-bus/"):
                    event = json.loads(body)
                    self._put_event(resource.removeprefix("event-bus/"), event)
                case _:
                    raise UndeliverableError("UNSUPPORTED_TARGET", f"nothing here can deliver to {arn}", retry=False)
        except Refused as error:
            raise UndeliverableError(error.code, error.message, retry=error.status != 404) from error
        except (ServiceException, HTTPException) as error:
            raise UndeliverableError("NO_RESOURCE", f"{arn}: {error}", retry=False) from error

    def _send_to_function(self, arn: str, body: str) -> None:
        try:
            json.loads(body)
        except ValueError as error:
            raise UndeliverableError(
                "INVALID_JSON", f"the input for {arn} is not JSON: {error}", retry=False
            ) from error
        self._invoker.enqueue(arn, body.encode())

    def _send_to_log_group(self, resource: str, body: str) -> None:
        if self.logs is None:
            raise UndeliverableError("UNSUPPORTED_TARGET", "no log store was given to the event bus", retry=False)
        group = resource.removeprefix("log-group:").removesuffix(":*")
        self.logs.write(group, str(uuid.uuid4()), self._now(), body)


def _for_sqs(attributes: Mapping[str, str | int] | None) -> dict[str, Any]:
    return {
        name: {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}
        for name, value in (attributes or {}).items()
    }


def _for_sns(attributes: Mapping[str, str | int] | None) -> dict[str, Any]:
    return {
        name: {"Type": "Number" if isinstance(value, int) else "String", "Value": str(value)}
        for name, value in (attributes or {}).items()
    }
