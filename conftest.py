"""The fixtures that Perch gives to projects which deploy with it, for its own tests; and the order of these."""

import os

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as perch.predictor.runtimes does, for tests that import onnxruntime first

pytest_plugins = ["perch.local.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that none of them is left to run alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
