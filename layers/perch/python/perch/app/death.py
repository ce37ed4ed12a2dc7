"""Deaths: a revision that ends, hangs or is killed is told apart from one that answers, however badly.

Native code meets a model's bytes for the first time when a candidate loads it, and may crash on them. Lambda then
answers in the function's place. Such an answer is final for the candidate: it is a reason to refuse it, at once, and
nobody else meets it, because the alias does not point there yet.

    knock   a request that runs no model: what dies of it died while loading
    probes  what dies of them died while answering

Lambda's words ("Lambda runtime invocation errors"): a process that ended is `Runtime.ExitError`, with the signal or the
exit status in the message; one that needs more memory than its function has is killed with SIGKILL; a function that ran
longer than its timeout, or whose init did so even when it was tried again, is `Sandbox.Timedout`.
"""

from __future__ import annotations

import re
from typing import Any

from perch.aws.functions import Functions

_ENDED = re.compile(r"Runtime exited (?:with error: )?(.+)")
_LATE = re.compile(r"[Tt]imed out after ([0-9.]+) ?s")


def dies_loading(functions: Functions, function: str, lambda_version: str, event: dict[str, Any]) -> str | None:
    """Send a revision a request that runs no model; say how it died, None if it lives.

    Raises:
        NotReady: Lambda is busy; that says nothing of the model.
    """
    return cause_of_death(*functions.ask(function, lambda_version, event))


def cause_of_death(status: int, answer: Any) -> str | None:
    """Say how a revision died of what it was asked; None if it answered, or raised, which it survives."""
    if status != 502 or not isinstance(answer, dict):
        return None
    kind, said = str(answer.get("type", "")), str(answer.get("error", ""))
    if late := _LATE.search(said):
        return f"it was not done within {float(late[1]):g} s"
    if kind == "Sandbox.Timedout":
        return "it was not done in time"
    if kind == "Runtime.OutOfMemory":
        return "out of memory"
    ended = _ENDED.search(said)
    if ended is None:
        return None
    how = ended[1].strip().rstrip(".")
    return f"{how}, as what needs more memory than its function has" if how == "signal: killed" else how
