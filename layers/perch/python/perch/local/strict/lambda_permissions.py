"""Resource policies of Lambda: one for each qualifier, so that an alias keeps its own when it moves.

Left out: nobody evaluates the policies, and the conditions that only IAM could check are kept as they came.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from moto.awslambda import models, responses
from moto.awslambda.policy import Policy

from perch.local.patches import Patches
from perch.local.strict.lambda_errors import LambdaError, not_found
from perch.local.strict.lambda_functions import latest_of
from perch.local.strict.lambda_state import LOCK


def split_name(storage: Any, function: str, qualifier: str | None) -> tuple[str, str | None]:
    """Return a function's bare name and the qualifier, which a name or ARN may carry itself."""
    if function.startswith("arn:"):
        _, name, in_name = storage.split_function_arn(function)
    else:
        name, _, in_name = function.rpartition(":function:")[2].partition(":")
    return name, in_name or qualifier or None


def policy_of(storage: Any, function: str, qualifier: str | None = None) -> Policy:
    """Return the policy of a function, a version or an alias; raises ResourceNotFoundException."""
    name, qualifier = split_name(storage, function, qualifier)
    latest = latest_of(storage, name)
    if qualifier is None or qualifier == "$LATEST":
        return latest.policy
    owner = storage._aliases[latest.function_arn].get(qualifier) or storage._get_version(name, qualifier)
    if owner is None:
        raise not_found(f"{latest.function_arn}:{qualifier}")
    if "strict_policy" not in owner.__dict__:
        owner.strict_policy = Policy(latest)
    policy: Policy = owner.strict_policy
    return policy


def add(storage: Any, function: str, qualifier: str | None, statement: dict[str, Any]) -> dict[str, Any]:
    """Add one statement (fields as in AddPermission); raises 409 for an id that is taken, 412 for a stale revision."""
    with LOCK:
        _, qualifier = split_name(storage, function, qualifier)
        policy = policy_of(storage, function, qualifier)
        sid = statement.get("StatementId")
        if any(present["Sid"] == sid for present in policy.statements):
            raise LambdaError(
                "ResourceConflictException",
                f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the "
                "existing statement.",
                409,
            )
        in_arn = None if qualifier == "$LATEST" else qualifier
        added, _ = policy.add_statement(json.dumps(statement), in_arn)
        return dict(added)


def remove(storage: Any, function: str, qualifier: str | None, sid: str, revision: str = "") -> None:
    """Remove one statement; raises 404 when there is none of this id."""
    with LOCK:
        policy_of(storage, function, qualifier).del_statement(sid, revision)


def _add_permission(self: Any, function_name: str, qualifier: str, raw: str) -> dict[str, Any]:
    return add(self._lambdas, function_name, qualifier, json.loads(raw))


def _get_policy(self: Any, function_name: str, qualifier: str | None = None) -> str:
    answer: str = policy_of(self._lambdas, function_name, qualifier).wire_format()
    return answer


def _remove_permission_response(self: Any) -> Any:
    function = unquote(self.path.split("/")[-3])
    sid = unquote(self.path.split("/")[-1].split("?")[0])
    remove(
        self.backend._lambdas,
        function,
        self.querystring.get("Qualifier", [None])[0],
        sid,
        self.querystring.get("RevisionId", [""])[0],
    )
    return 204, {"status": 204}, ""


def install(patches: Patches) -> None:
    """Give each qualifier a policy of its own."""
    patches.set_all(models.LambdaBackend, {"add_permission": _add_permission, "get_policy": _get_policy})
    patches.set(responses.LambdaResponse, "remove_permission", _remove_permission_response)
