"""What a server says of itself in the Open Inference Protocol; nothing here imports more than the standard library.

The predictor answers it where it is alone with its clients (a Function URL, a container), and `describe_api` for all
endpoints of an HTTP API.
"""

from __future__ import annotations

from typing import Any

NAME, VERSION = "perch", "0.1.0"
"""VERSION is the project's; a layer holds the package without the metadata that would tell."""

EXTENSIONS = ("binary_tensor_data",)


def server_metadata() -> dict[str, Any]:
    """Return the answer to `GET /v2`."""
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def live() -> dict[str, Any]:
    """Return the answer to `GET /v2/health/live`."""
    return {"live": True}


def ready() -> dict[str, Any]:
    """Return the answer to `GET /v2/health/ready`: the specification says `live`, clients read `ready`."""
    return {"live": True, "ready": True}
