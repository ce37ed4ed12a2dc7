"""Telling one refusal of AWS from another, above all trouble that passes from trouble that stays.

A throttled call, a server error or a broken connection says nothing of the candidate: the next tick tries again. Any
other refusal by AWS will be the same next time, so somebody has to decide something.

A refusal is known by its code. The classes under `client.exceptions` are no way to know it: botocore makes them when
they are first asked for, and two threads that ask at once get two sets, so that one's `except` lets the other's by.
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


def code_of(error: ClientError) -> str:
    """Return what AWS calls the refusal, such as `ResourceNotFoundException`."""
    return error.response["Error"]["Code"]


def passes(error: Exception) -> bool:
    """Whether trying again later is all that an error asks for."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or code_of(error) in _THROTTLES
    return isinstance(error, BotoCoreError)
