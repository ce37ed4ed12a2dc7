"""Aliases of the Lambda API: weights, targets and revision ids checked as AWS does.

`check_routing` is the whole rule and touches nothing: at most one additional version, a weight in [0, 1], never
$LATEST, both versions exist, differ, and have the same role and dead-letter configuration. UpdateAlias without
RoutingConfig leaves the routing alone; an empty AdditionalVersionWeights clears it.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from moto.awslambda import models, responses

from perch.local.patches import Patches
from perch.local.strict.lambda_errors import LambdaError, invalid, not_found, stale_revision
from perch.local.strict.lambda_functions import kept_of, latest_of
from perch.local.strict.lambda_state import LOCK, new_revision_id, touch

ALIAS_NAME = re.compile(r"(?!^[0-9]+$)[a-zA-Z0-9-_]{1,128}")


def check_routing(storage: Any, function: str, version: str, weights: dict[str, float]) -> None:
    """Raise as AWS would when an alias of `function` may not point to `version` with these additional `weights`."""
    main = _version(storage, function, version)
    if not weights:
        return
    if len(weights) > 1:
        raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
    (other, weight) = next(iter(weights.items()))
    # NaN fails the comparison too.
    if not 0.0 <= float(weight) <= 1.0:
        raise LambdaError(
            "ValidationException",
            f"1 validation error detected: Value '{{{other}={weight}}}' at 'routingConfig.additionalVersionWeights' "
            "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or "
            "equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]",
        )
    if version == "$LATEST":
        raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
    if not other.isdigit():
        raise LambdaError(
            "ValidationException",
            f"1 validation error detected: Value '{{{other}={weight}}}' at 'routingConfig.additionalVersionWeights' "
            "failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression "
            "pattern: [0-9]+]",
        )
    if other == version:
        raise invalid(
            f"Invalid function version {version}. Function version {version} is already included in routing "
            "configuration."
        )
    second = _version(storage, function, other)
    if main.role != second.role:
        raise invalid("Function versions of an alias with routing configuration must have the same execution role.")
    if _dead_letter(main) != _dead_letter(second):
        raise invalid(
            "Function versions of an alias with routing configuration must have the same dead letter configuration."
        )


def _dead_letter(function: Any) -> str:
    target: str = kept_of(function).get("DeadLetterConfig", {}).get("TargetArn") or ""
    return target


def _version(storage: Any, function: str, version: str) -> Any:
    latest = latest_of(storage, function)
    if version == "$LATEST":
        return latest
    found = storage._get_version(latest.function_name, version) if version.isdigit() else None
    if found is None:
        raise not_found(f"{latest.function_arn}:{version}")
    return found


def _weights(routing_config: dict[str, Any] | None) -> dict[str, float]:
    return dict((routing_config or {}).get("AdditionalVersionWeights") or {})


def create(
    storage: Any,
    function: str,
    name: str,
    version: str,
    routing_config: dict[str, Any] | None = None,
    description: str = "",
) -> Any:
    """Make an alias; raises 409 when the name is taken."""
    with LOCK:
        latest = latest_of(storage, function)
        if not name or not ALIAS_NAME.fullmatch(name):
            raise LambdaError(
                "ValidationException",
                f"1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint: Member must "
                "satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)",
            )
        aliases = storage._aliases[latest.function_arn]
        if name in aliases:
            raise LambdaError(
                "ResourceConflictException", f"Alias already exists: {aliases[name].arn}, please remove it first.", 409
            )
        weights = _weights(routing_config)
        check_routing(storage, function, version, weights)
        alias = models.LambdaAlias(
            account_id=storage.account_id,
            region=storage.region_name,
            name=name,
            function_name=latest.function_name,
            function_version=version,
            description=description or "",
            routing_config={"AdditionalVersionWeights": weights} if weights else None,
        )
        alias.revision_id = new_revision_id()
        aliases[name] = alias
        touch()
        return alias


def update(
    storage: Any,
    function: str,
    name: str,
    version: str | None = None,
    routing_config: dict[str, Any] | None = None,
    description: str | None = None,
    revision_id: str | None = None,
) -> Any:
    """Change an alias, all or nothing; None leaves a part as it is."""
    with LOCK:
        alias = storage.get_alias(name, latest_of(storage, function).function_name)
        if revision_id and revision_id != alias.revision_id:
            raise stale_revision()
        weights = _weights(alias.routing_config if routing_config is None else routing_config)
        version = version if version is not None else str(alias.function_version)
        check_routing(storage, function, version, weights)
        alias.function_version = version
        alias.routing_config = {"AdditionalVersionWeights": weights} if weights else None
        if description is not None:
            alias.description = description
        alias.revision_id = new_revision_id()
        touch()
        return alias


def delete(storage: Any, function: str, name: str) -> None:
    """Remove an alias; removing one that is not there is no error."""
    with LOCK:
        latest = latest_of(storage, function)
        storage._aliases[latest.function_arn].pop(name, None)
        touch()


def _named_in_path(self: Any) -> tuple[str, str]:
    return unquote(self.path.rsplit("/")[-3]), unquote(self.path.rsplit("/", 2)[-1])


def _create_alias_response(self: Any) -> Any:
    body = json.loads(self.body)
    alias = create(
        self.backend._lambdas,
        unquote(self.path.rsplit("/", 2)[-2]),
        body.get("Name"),
        body.get("FunctionVersion"),
        body.get("RoutingConfig"),
        body.get("Description", ""),
    )
    return 201, {"status": 201}, json.dumps(alias.to_json())


def _update_alias_response(self: Any) -> Any:
    function, name = _named_in_path(self)
    body = json.loads(self.body)
    alias = update(
        self.backend._lambdas,
        function,
        name,
        body.get("FunctionVersion"),
        body.get("RoutingConfig"),
        body.get("Description"),
        body.get("RevisionId"),
    )
    return 200, {"status": 200}, json.dumps(alias.to_json())


def _get_alias_response(self: Any) -> Any:
    function, name = _named_in_path(self)
    alias = self.backend.get_alias(name=name, function_name=latest_of(self.backend._lambdas, function).function_name)
    return 200, {"status": 200}, json.dumps(alias.to_json())


def _delete_alias_response(self: Any) -> Any:
    function, name = _named_in_path(self)
    delete(self.backend._lambdas, function, name)
    return 204, {"status": 204}, ""


def _to_json(self: Any) -> dict[str, Any]:
    answer = {
        "AliasArn": self.arn,
        "Description": self.description,
        "FunctionVersion": str(self.function_version),
        "Name": self.name,
        "RevisionId": self.revision_id,
    }
    if self.routing_config:
        answer["RoutingConfig"] = self.routing_config
    return answer


def install(patches: Patches) -> None:
    """Make aliases strict."""
    patches.set(models.LambdaAlias, "to_json", _to_json)
    patches.set_all(
        responses.LambdaResponse,
        {
            "create_alias": _create_alias_response,
            "update_alias": _update_alias_response,
            "get_alias": _get_alias_response,
            "delete_alias": _delete_alias_response,
        },
    )
