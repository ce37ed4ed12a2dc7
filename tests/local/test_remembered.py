"""What is remembered between requests to moto changes no answer."""

from __future__ import annotations

import pytest
from moto import mock_aws

from perch.local import strict
from perch.local.sessions import make_session

TYPES = {
    "S": "text", "N": "1.50", "B": b"\x00\xff", "BOOL": False, "NULL": True, "SS": ["a", "b"], "NS": ["1", "2"],
    "BS": [b"a"], "L": [{"S": ""}, {"M": {"deep": {"N": "0"}}}], "M": {"S": {"N": "7"}, "value": {"L": []}},
}  # fmt: skip


@pytest.fixture(params=["S", "N"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type of a table's range key."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return request.param


def answers(kind: str) -> list[object]:
    """Write items of all types under keys of text or numbers; read them back in each order, twice."""
    with mock_aws():
        client = make_session(region_name="us-east-1").client("dynamodb")
        client.create_table(
            TableName="items",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": kind},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        keys = [str(number) for number in (10, 9, 100, 2)]
        for key in keys:
            item = {name: {name: value} for name, value in TYPES.items()}
            client.put_item(TableName="items", Item={"pk": {"S": "all"}, "sk": {kind: key}, **item})
        found: list[object] = []
        for forward in (True, False, True):
            asked = client.query(
                TableName="items",
                KeyConditionExpression="pk = :all AND sk > :least",
                ExpressionAttributeValues={":all": {"S": "all"}, ":least": {kind: "10"}},
                ScanIndexForward=forward,
            )
            found += asked["Items"]
        found += [
            client.get_item(TableName="items", Key={"pk": {"S": "all"}, "sk": {kind: key}})["Item"] for key in keys
        ]
        table = client.describe_table(TableName="items")["Table"]
        return [*found, table["KeySchema"], table["AttributeDefinitions"], table["ItemCount"]]


def test_items_of_every_type_come_back_as_without_it_and_in_the_same_order(kind: str) -> None:
    """Text in the order of text, numbers in that of numbers; each value with its own type and nothing beside it."""
    plain = answers(kind)
    strict.install()
    try:
        remembered = answers(kind)
    finally:
        strict.uninstall()

    assert remembered == plain
    listed = [item["sk"][kind] for item in remembered if isinstance(item, dict) and "sk" in item]
    assert listed[:3] == {"S": ["100", "2", "9"], "N": ["100", "100", "100"]}[kind]
