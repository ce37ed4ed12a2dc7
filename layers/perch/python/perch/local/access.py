"""How any AWS tool reaches a local cloud: its account, region and key, and the variables that lead there.

Apart from the local cloud itself, so that a client (the `perch` command) need not import what it never runs.
"""

from __future__ import annotations

ACCOUNT, REGION, KEY = "123456789012", "us-east-1", "local"


def local_environment(api_url: str) -> dict[str, str]:
    """Return the variables that lead any AWS tool to a local cloud."""
    return {
        "AWS_ENDPOINT_URL": api_url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
