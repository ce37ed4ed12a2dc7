"""What the data plane's tests use in place of the rest of the local cloud."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from perch.local.ports import FunctionVersion, Refused, Target

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ARN = "arn:aws:lambda:us-east-1:123456789012:function:"


def until(condition):
    """Wait for something that is bound to happen."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class FixedClock:
    """It is always noon; counts who holds it."""

    def __init__(self):
        self.held = 0
        self.ever_held = 0

    def now(self):
        return NOON

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.held += 1
        self.ever_held += 1
        try:
            yield
        finally:
            self.held -= 1


class RecordedMetrics:
    """Keeps every measurement."""

    def __init__(self):
        self.points = []

    def put(self, namespace, name, dimensions, value, *, at, unit="None", count=1.0):
        self.points.append((namespace, name, dict(dimensions), value, at, unit))

    def recorder(self, metrics):
        return _Recorder(self, metrics)

    def values(self, name, **dimensions):
        """Return the values of one series, in the order put."""
        return [point[3] for point in self.points if point[1] == name and point[2] == dimensions]


class _Recorder:
    """Puts what is recorded together, metric by metric."""

    def __init__(self, sink, metrics):
        self.sink, self.metrics = sink, metrics

    def record(self, values, at):
        for metric, value in zip(self.metrics, values, strict=True):
            for dimensions in metric.dimensions:
                self.sink.put(metric.namespace, metric.name, dimensions, value, at=at, unit=metric.unit)


class RecordedLogs:
    """Keeps every line."""

    def __init__(self):
        self.entries = []

    def write(self, group, stream, at, line):
        self.entries.append((group, stream, line))

    @property
    def lines(self):
        return [line for _, _, line in self.entries]


class FakeFunctions:
    """Functions written into a folder by the test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.targets = {}

    def add(self, name, source, *, version="1", alias=None, reserved=None, **fields):
        """Add or replace a function whose handler module has the given source; returns its code folder."""
        code = self.folder / f"{name}-{version}-{fields.get('fingerprint', '')}"
        code.mkdir(exist_ok=True)
        (code / "handler.py").write_text(dedent(source))
        function = FunctionVersion(
            name=name,
            version=version,
            arn=f"{ARN}{name}:{version}",
            handler="handler.handler",
            code=code,
            **{"memory_mb": 256, "timeout_s": 20, **fields},
        )
        resource = f"{name}:{alias}" if alias else name
        self.targets[name] = Target(function=function, resource=resource, via_alias=bool(alias), reserved=reserved)
        return code

    def change(self, name, **fields):
        """Replace fields of a target."""
        self.targets[name] = replace(self.targets[name], **fields)

    def resolve(self, function, qualifier=None):
        name = function.removeprefix(ARN).split(":")[0]
        if name not in self.targets:
            raise Refused("ResourceNotFoundException", f"Function not found: {function}", 404)
        return self.targets[name]
