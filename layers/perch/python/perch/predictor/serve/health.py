"""The container's health check: `python -m perch.predictor.serve.health` asks the server at HOST and PORT.

Exit code 0: it is. 1: it is not, with the reason. In Lambda nobody asks.
"""

from __future__ import annotations

import http.client
import os
import sys

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - what HOST may say


def main() -> int:
    """Ask, and return the exit code."""
    host = os.environ.get("HOST", "")
    host = "127.0.0.1" if host in _EVERYWHERE else host
    connection = http.client.HTTPConnection(host, int(os.environ.get("PORT") or 8080), timeout=2)
    try:
        connection.request("GET", "/v2/health/live")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"perch: not live: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
