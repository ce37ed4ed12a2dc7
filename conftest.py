"""The fixtures that Perch gives to projects which deploy with it, for its own tests; their order, and their names."""

import os
from collections import Counter
from functools import cache

import botocore.session
import pytest
from schemathesis.pytest.plugin import SchemathesisFunction

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as perch.predictor.runtimes does, for tests that import onnxruntime first

pytest_plugins = ["perch.local.fixtures"]

# Each boto3 session, and a test of the command makes several, would read the descriptions of AWS's services again.
botocore.session.create_loader = cache(botocore.session.create_loader)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that none of them is left to run alone at the end.

    Two tests of one id would be one test for xdist, and the other would never run. schemathesis 4.32 names an operation
    in an item's name; pytest 9.2 takes the id from the function's, which all operations of a document share.
    """
    for item in items:
        if isinstance(item, SchemathesisFunction) and item.parent and item.nodeid.endswith(item.originalname):
            item._id = item.parent.id.child(item.name)  # noqa: SLF001 - there is no other way in
    if twins := [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"xdist would run only one test of each of these ids: {', '.join(twins)}")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
