"""Telling trouble that passes from trouble that stays.

A throttled call, a server error or a broken connection says nothing of the candidate: the next tick tries again. Any
other refusal by AWS will be the same next time, so somebody has to decide something.
"""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

_THROTTLES = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionConflictException",
    "TransactionInProgressException",
}


def passes(error: Exception) -> bool:
    """Whether trying again later is all that an error asks for."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or error.response["Error"]["Code"] in _THROTTLES
    return isinstance(error, BotoCoreError)
