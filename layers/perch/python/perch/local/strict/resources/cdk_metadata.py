"""`AWS::CDK::Metadata`: what the CDK tells about itself; nothing is made of it."""

from __future__ import annotations

from typing import Any

from perch.local.strict.resources.base import Made, Request, Resource


class CdkMetadata(Resource):
    """A note; Ref gives its id."""

    TYPE = "AWS::CDK::Metadata"

    @classmethod
    def create(cls, request: Request) -> Any:
        """Make nothing; an update does the same."""
        return Made(request.name)
