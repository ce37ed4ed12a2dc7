"""Perch's predictor in the local cloud, with its whole Lambda path: gateway, Runtime API, worker processes."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from moto.server import ThreadedMotoServer

from benchmarks.gateway_throughput import ROOT, WORKERS, Bench, Logs, store_model
from perch.local.clock import VirtualClock
from perch.local.compute import DataPlane
from perch.local.gateway import Gateway
from perch.local.metrics.store import MetricStore
from perch.local.ports import Route


class OneModel(Bench):
    """The predictor under the protocol's path."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Make its one function."""
        super().__init__({"bench": folder}, environment)

    def routes(self) -> tuple[Route, ...]:
        """Return the route that is asked."""
        path = "/v2/models/bench/infer"
        function = "arn:aws:lambda:us-east-1:123456789012:function:bench:live"
        return (Route(route_key=f"POST {path}", method="POST", path=path, function=function),)


def main() -> None:
    """Serve until killed."""
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    environment = {**store_model(f"http://localhost:{port}"), "PERCH_ENDPOINT": "bench"}
    clock = VirtualClock(datetime.now(UTC))
    clock.run()
    bench = OneModel(ROOT / "functions" / "predict_onnx", environment)
    plane = DataPlane(bench, clock, MetricStore(), Logs(), max_workers=WORKERS)
    plane.start()
    Gateway(plane, bench, clock).start(port=int(os.environ["PORT"]))
    threading.Event().wait()


if __name__ == "__main__":
    main()
