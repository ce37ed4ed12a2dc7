"""The HTTP front of the local cloud: API Gateway's HTTP API on the data plane's loop."""

from perch.local.gateway.gateway import Gateway

__all__ = ["Gateway"]
