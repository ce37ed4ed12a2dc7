"""MLServer as `mlserver start` runs it: in one process (`parallel_workers` 0), or with a pool of workers beside it."""

import asyncio
import os
import sys
from pathlib import Path

from mlserver import MLServer, ModelSettings, Settings

sys.path.insert(0, str(Path(__file__).parent))


async def main() -> None:
    """Serve."""
    port, workers = int(os.environ["PORT"]), int(os.environ["WORKERS"])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1000,
        metrics_endpoint=None,
        parallel_workers=0 if workers == 1 else workers,
        debug=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="bench", implementation="mlserver_model.Bench")])


if __name__ == "__main__":
    asyncio.run(main())
