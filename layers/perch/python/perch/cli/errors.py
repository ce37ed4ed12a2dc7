"""From an exception to the sentence that a person reads: what was wrong, and what to do.

Perch's own errors are such sentences already. AWS's and the machine's are put into words here; anything else is a bug,
and says how to see where.
"""

from __future__ import annotations

from typing import Any

_ADVICE = {
    "AccessDenied": "the credentials in use lack this permission",
    "AccessDeniedException": "the credentials in use lack this permission",
    "UnauthorizedOperation": "the credentials in use lack this permission",
    "ExpiredToken": "sign in again",
    "ExpiredTokenException": "sign in again",
    "RequestExpired": "sign in again, or set this machine's clock",
    "InvalidClientTokenId": "check the credentials, or use `perch --local` for the local cloud",
    "UnrecognizedClientException": "check the credentials, or use `perch --local` for the local cloud",
    "SignatureDoesNotMatch": "check the secret access key",
    "Throttling": "wait a moment and try again",
    "ThrottlingException": "wait a moment and try again",
}


def explain(error: Exception) -> str:
    """Return one clear sentence about `error`."""
    if type(error).__module__.startswith("perch."):
        return str(error)
    if sentence := _of_botocore(error):
        return sentence
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"perch met a bug: {type(error).__name__}: {error}; `perch --debug …` shows where"


def _of_botocore(error: Exception) -> str | None:
    """Return a sentence if the error comes from the AWS SDK (told by its module, so that it need not be imported)."""
    if not any(kind.__module__.split(".")[0] in ("botocore", "boto3", "s3transfer") for kind in type(error).__mro__):
        return None
    name, response = type(error).__name__, getattr(error, "response", None)
    if isinstance(response, dict):
        return _refusal(error, response)
    return {
        "NoCredentialsError": "there are no AWS credentials: configure them (AWS_PROFILE, `perch --profile`, "
        "environment variables)",
        "NoRegionError": "no AWS region is chosen: set AWS_REGION or use `perch --region`",
        "EndpointConnectionError": f"{error} Is it running, and is this machine on the network?",
        "ConnectTimeoutError": f"{error}; is this machine on the network?",
        "ProfileNotFound": f"{error}; `perch --profile` or AWS_PROFILE names one of ~/.aws/config",
    }.get(name, str(error))


def _refusal(error: Any, response: dict[str, Any]) -> str:
    told = response.get("Error", {})
    code = str(told.get("Code", "Unknown"))
    advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
    operation = getattr(error, "operation_name", "the call")
    return f"AWS refused {operation}: {told.get('Message') or code} ({code}){advice}"
