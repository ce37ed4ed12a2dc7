"""The errors of the Lambda API that moto does not word, with the status and the sentence that AWS uses."""

from __future__ import annotations

from moto.core.exceptions import JsonRESTError

from perch.local.ports import Refused


class LambdaError(JsonRESTError):  # type: ignore[misc]  # moto carries no types
    """An error answer of the Lambda API: AWS's code, message and HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message)
        self.code = status

    @classmethod
    def of(cls, refused: Refused) -> LambdaError:
        """Make an error answer of what the data plane refused."""
        return cls(refused.code, refused.message, refused.status)


def stale_revision() -> LambdaError:
    """A RevisionId that is not the latest."""
    return LambdaError(
        "PreconditionFailedException",
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
        412,
    )


def not_found(arn: str) -> LambdaError:
    """A function, version or alias that is not there."""
    return LambdaError("ResourceNotFoundException", f"Function not found: {arn}", 404)


def invalid(message: str) -> LambdaError:
    """A parameter that Lambda does not take."""
    return LambdaError("InvalidParameterValueException", message)


def update_in_progress(arn: str) -> LambdaError:
    """A change while an earlier one has not settled."""
    return LambdaError(
        "ResourceConflictException",
        f"The operation cannot be performed at this time. An update is in progress for resource: {arn}",
        409,
    )


def not_active(state: str) -> Refused:
    """An invocation of a version that is not Active yet."""
    message = (
        f"The operation cannot be performed at this time. The function is currently in the following state: {state}"
    )
    return Refused("ResourceConflictException", message, 409)
