"""What a target is sent: the event, a part of it, a constant, or what a template makes of it."""

from __future__ import annotations

import json

import pytest

from perch.local.events.targets import make_input

EVENT = {
    "version": "0",
    "id": "7bf73129",
    "source": "aws.ec2",
    "time": "2015-11-11T21:29:54Z",
    "resources": ["arn:one", "arn:two"],
    "detail": {"instance-id": "i-0123456789", "state": "RUNNING", "size": 5, "tags": {"a": 1}},
}
PATHS = {
    "instance": "$.detail.instance-id",
    "state": "$.detail.state",
    "gone": "$.detail.gone",
    "tags": "$.detail.tags",
}


def sent(**target):
    return make_input(target, EVENT, received="2015-11-11T21:29:59Z", rule_name="example", rule_arn="arn:rule/example")


def transformed(template, paths=PATHS):
    return sent(InputTransformer={"InputPathsMap": paths, "InputTemplate": template})


def test_without_instructions_the_whole_event_is_sent():
    """As JSON."""
    assert json.loads(sent()) == EVENT


def test_a_constant_is_sent_as_it_is():
    """Input."""
    assert sent(Input='{"endpoint": "digits"}') == '{"endpoint": "digits"}'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", EVENT),
        ("$.detail", EVENT["detail"]),
        ("$.detail.size", 5),
        ("$.resources[1]", "arn:two"),
        ("$.resources[*]", ["arn:one", "arn:two"]),
        ("$.detail['instance-id']", "i-0123456789"),
        ("$.detail.gone", {}),
    ],
)
def test_an_input_path_sends_a_part(path, expected):
    """InputPath."""
    assert json.loads(sent(InputPath=path)) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('"instance <instance> is in <state>"', '"instance i-0123456789 is in RUNNING"'),
        ('{"instance": <instance>, "state": <state>}', '{"instance":"i-0123456789","state":"RUNNING"}'),
        ('{"state": "<state>", "s": "is \\"<instance>\\""}', '{"state":"RUNNING","s":"is \\"i-0123456789\\""}'),
        ('{"state": [9, <state>, true], "t": "Yes"}', '{"state":[9,"RUNNING",true],"t":"Yes"}'),
        ('{"tags": <tags>}', '{"tags":{"a":1}}'),
        ('"<aws.events.rule-name> triggered"', '"example triggered"'),
        ('{"arn": <aws.events.rule-arn>}', '{"arn":"arn:rule/example"}'),
        ('{"a": <gone>, "b": 1, "c": [<gone>, 2], "d": "<gone>!"}', '{"b":1,"c":[2],"d":"!"}'),
        ("plain <state>", 'plain "RUNNING"'),
    ],
)
def test_a_template_is_filled_by_the_documented_rules(template, expected):
    """JSON where a variable stands alone, bare text inside quotes; what is not in the event does not appear."""
    assert transformed(template) == expected


def test_the_reserved_variables_hold_the_event():
    """`event` is the envelope without the detail, `event.json` is everything."""
    whole = json.loads(transformed('{"envelope": <aws.events.event>, "all": <aws.events.event.json>}', {}))
    assert whole["all"] == EVENT
    assert whole["envelope"] == {name: value for name, value in EVENT.items() if name != "detail"}


def test_the_schedule_of_a_health_check_reaches_its_function():
    """The template that the deployed rules use."""
    text = transformed('{"endpoint":"digits","time":<time>}', {"time": "$.time"})
    assert json.loads(text) == {"endpoint": "digits", "time": "2015-11-11T21:29:54Z"}
