"""DynamoDB keeps its promises to many clients at once."""

import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from perch.aws.trouble import code_of
from perch.local import strict

CLIENTS, EACH = 6, 25


@pytest.fixture
def table(monkeypatch):
    """A client, and a table `items` with keys pk and sk, while threads change places as often as they can."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    interval = sys.getswitchinterval()
    with mock_aws():
        strict.install()
        client = boto3.client("dynamodb")
        keys = ("pk", "HASH"), ("sk", "RANGE")
        client.create_table(
            TableName="items",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
            BillingMode="PAY_PER_REQUEST",
        )
        sys.setswitchinterval(1e-5)
        yield client
        sys.setswitchinterval(interval)
        strict.uninstall()


def put(sk, **condition):
    return {"Put": {"TableName": "items", "Item": {"pk": {"S": "all"}, "sk": {"S": sk}}, **condition}}


def together(work):
    with ThreadPoolExecutor(CLIENTS) as threads:
        return [found for part in threads.map(work, range(CLIENTS)) for found in part]


def test_what_was_acknowledged_stays_whatever_other_transactions_are_cancelled(table):
    """A cancelled transaction undoes its own writes and nobody else's."""

    def work(number):
        for turn in range(EACH):
            table.transact_write_items(TransactItems=[put(f"{number}-{turn}"), put(f"{number}-{turn}-too")])
            with pytest.raises(ClientError, match="ConditionalCheckFailed"):
                table.transact_write_items(
                    TransactItems=[
                        put(f"{number}-{turn}-never"),
                        put(f"{number}-{turn}", ConditionExpression="attribute_not_exists(pk)"),
                    ]
                )
            yield from (f"{number}-{turn}", f"{number}-{turn}-too")

    told = together(lambda number: list(work(number)))
    kept = [item["sk"]["S"] for item in table.scan(TableName="items", ConsistentRead=True)["Items"]]

    assert sorted(kept) == sorted(told)


def test_a_condition_holds_for_one_of_many(table):
    """Of all who would create one item, one does."""

    def work(_):
        for turn in range(EACH):
            try:
                table.put_item(TableName="items", **fresh(f"{turn}"))
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
            else:
                yield turn

    winners = together(lambda number: list(work(number)))

    assert sorted(winners) == list(range(EACH))


def fresh(sk):
    (request,) = put(sk, ConditionExpression="attribute_not_exists(pk)").values()
    return {name: value for name, value in request.items() if name != "TableName"}


def test_a_cancelled_transaction_leaves_every_item_that_it_names_as_it_was(table):
    """What it would have made, changed and deleted; and nothing else is touched."""
    for sk in ("changed", "deleted", "replaced"):
        table.put_item(TableName="items", Item={"pk": {"S": "all"}, "sk": {"S": sk}, "n": {"L": [{"N": "1"}]}})
    before = table.scan(TableName="items", ConsistentRead=True)["Items"]
    key = {"TableName": "items", "Key": {"pk": {"S": "all"}, "sk": {"S": "changed"}}}
    change = {"UpdateExpression": "SET n[0] = :two", "ExpressionAttributeValues": {":two": {"N": "2"}}}
    items = [
        put("made"),
        put("replaced"),
        {"Update": {**key, **change}},
        {"Delete": {**key, "Key": {"pk": {"S": "all"}, "sk": {"S": "deleted"}}}},
        put("never", ConditionExpression="attribute_exists(pk)"),
    ]
    with pytest.raises(ClientError, match="TransactionCanceled"):
        table.transact_write_items(TransactItems=items)
    assert table.scan(TableName="items", ConsistentRead=True)["Items"] == before

    table.transact_write_items(TransactItems=items[:-1])
    after = {i["sk"]["S"]: i.get("n") for i in table.scan(TableName="items", ConsistentRead=True)["Items"]}
    assert after == {"changed": {"L": [{"N": "2"}]}, "made": None, "replaced": None}
