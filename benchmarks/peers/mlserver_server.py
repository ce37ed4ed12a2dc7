"""MLServer, in one process (`parallel_workers` 0), as `mlserver start` runs it."""

import asyncio
import os
import sys
from pathlib import Path

from mlserver import MLServer, ModelSettings, Settings

sys.path.insert(0, str(Path(__file__).parent))


async def main() -> None:
    """Serve."""
    port = int(os.environ["PORT"])
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1000, metrics_endpoint=None, parallel_workers=0, debug=False
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="bench", implementation="mlserver_model.Bench")])


if __name__ == "__main__":
    asyncio.run(main())
