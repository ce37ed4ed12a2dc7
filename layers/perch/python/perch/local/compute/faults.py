"""The answers Lambda itself gives when a function could not: time-outs, exits, answers that are too large.

Each is the JSON payload of an invocation with `X-Amz-Function-Error: Unhandled`, worded as Lambda words it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from perch.local.json_text import NotJson, dump, parse

REQUEST_LIMIT = 6_291_456
RESPONSE_LIMIT = 6_291_556

_SIGNALS = {
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGILL: "illegal instruction",
    signal.SIGKILL: "killed",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGTERM: "terminated",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why an invocation gave no answer of its own.

    `payload` makes the error payload for a request id; `kind` is its error type; `status` and `note` are for the log:
    the status in the REPORT line, and a line of its own when Lambda writes one.
    """

    kind: str
    status: str
    payload: Callable[[str], bytes]
    note: str = ""


def _payload(kind: str, text: str) -> Callable[[str], bytes]:
    return lambda request_id: dump({"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {text}"})


def timed_out(seconds: float) -> Fault:
    """The function ran longer than its timeout."""
    text = f"Task timed out after {seconds:.2f} seconds"
    return Fault(kind="Sandbox.Timedout", status="timeout", payload=_payload("Sandbox.Timedout", text), note=text)


def exited(wait_status: int, *, out_of_memory: bool = False) -> Fault:
    """The runtime process ended by itself or was killed; `wait_status` is as `os.waitpid` gives it."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        text = f"Runtime exited with error: signal: {_SIGNALS.get(signal.Signals(number), str(number))}"
    elif (code := os.WEXITSTATUS(wait_status)) == 0:
        text = "Runtime exited without providing a reason"
    else:
        text = f"Runtime exited with error: exit status {code}"
    kind = "Runtime.OutOfMemory" if out_of_memory else "Runtime.ExitError"
    return Fault(kind=kind, status="error", payload=_payload("Runtime.ExitError", text), note=f"Error: {text}")


def init_error(payload: bytes) -> Fault:
    """The handler's module could not be imported; the payload is as the runtime client posted it."""
    try:
        kind = str(parse(payload)["errorType"])
    except (NotJson, KeyError, TypeError):
        kind = "Runtime.Unknown"
    return Fault(kind=kind, status="error", payload=lambda _: payload)


def response_too_large() -> Fault:
    """The handler answered with more than Lambda passes on."""
    kind = "Function.ResponseSizeTooLarge"
    message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
    body = dump({"errorMessage": message, "errorType": kind})
    return Fault(kind=kind, status="error", payload=lambda _: body)
