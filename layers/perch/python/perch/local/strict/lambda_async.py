"""Settings of asynchronous invocations: one event invoke config for each function, version or alias.

Moto keeps a list and answers with its first; here a Put replaces, an Update merges, and a qualifier has its own.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from moto.awslambda import models, responses

from perch.local.patches import Patches
from perch.local.ports import AsyncSettings
from perch.local.strict.lambda_errors import LambdaError
from perch.local.strict.lambda_functions import kept_of, latest_of
from perch.local.strict.lambda_permissions import split_name
from perch.local.strict.lambda_state import LOCK
from perch.local.strict.settings import current

KNOWN = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
Key = tuple[str, str]


def _key(storage: Any, function: str, qualifier: str | None) -> tuple[Key, str]:
    name, qualifier = split_name(storage, function, qualifier)
    latest = latest_of(storage, name)
    if qualifier and qualifier != "$LATEST":
        storage.get_function_by_name_with_qualifier(name, qualifier)
    qualifier = qualifier or "$LATEST"
    return (latest.function_name, qualifier), f"{latest.function_arn}:{qualifier}"


def _table(storage: Any) -> dict[Key, dict[str, Any]]:
    table: dict[Key, dict[str, Any]] = storage.__dict__.setdefault("strict_event_invoke", {})
    return table


def put(
    storage: Any, function: str, qualifier: str | None, config: dict[str, Any], *, merge: bool = False
) -> dict[str, Any]:
    """Write a config whole, or (`merge`) change what is named; returns it as the API answers."""
    with LOCK:
        key, arn = _key(storage, function, qualifier)
        before = get(storage, function, qualifier) if merge else {}
        given = {name: config[name] for name in KNOWN if config.get(name) is not None}
        models.EventInvokeConfig(arn, "", given)  # moto's checks of the values
        if given.get("MaximumRetryAttempts", 0) < 0 or given.get("MaximumEventAgeInSeconds", 60) < 60:
            raise LambdaError("ValidationException", "MaximumRetryAttempts is 0 to 2, MaximumEventAgeInSeconds >= 60")
        answer = {**before, "FunctionArn": arn, "LastModified": current().now().timestamp(), **given}
        _table(storage)[key] = answer
        return answer


def get(storage: Any, function: str, qualifier: str | None) -> dict[str, Any]:
    """Return a config; raises ResourceNotFoundException when there is none."""
    key, arn = _key(storage, function, qualifier)
    found = _table(storage).get(key)
    if found is None:
        raise LambdaError("ResourceNotFoundException", f"The function {arn} doesn't have an EventInvokeConfig", 404)
    return found


def delete(storage: Any, function: str, qualifier: str | None) -> None:
    """Remove a config; raises ResourceNotFoundException when there is none."""
    with LOCK:
        get(storage, function, qualifier)
        key, _ = _key(storage, function, qualifier)
        del _table(storage)[key]


def settings_of(storage: Any, function: str, qualifier: str | None, version: Any) -> AsyncSettings:
    """Return how an event for this qualifier is retried and dead-lettered; `version` is what it resolves to."""
    key, _ = _key(storage, function, qualifier)
    config = _table(storage).get(key, {})
    destination = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    return AsyncSettings(
        max_retries=int(config.get("MaximumRetryAttempts", 2)),
        max_age_s=float(config.get("MaximumEventAgeInSeconds", 21600)),
        on_failure_arn=destination or None,
        dead_letter_arn=kept_of(version).get("DeadLetterConfig", {}).get("TargetArn") or None,
    )


_FUNCTION = re.compile(r"/functions/(?P<function>[^/]+)/event-invoke-config")


def _asked(self: Any) -> tuple[Any, str, str | None]:
    found = _FUNCTION.search(self.path)
    function = unquote(found.group("function")) if found else ""
    return self.backend._lambdas, function, self.querystring.get("Qualifier", [None])[0]


def _put_response(self: Any) -> Any:
    return 200, {}, json.dumps(put(*_asked(self), self.json_body))


def _update_response(self: Any) -> Any:
    return 200, {}, json.dumps(put(*_asked(self), self.json_body, merge=True))


def _get_response(self: Any) -> Any:
    return 200, {}, json.dumps(get(*_asked(self)))


def _delete_response(self: Any) -> Any:
    delete(*_asked(self))
    return 204, {"status": 204}, ""


def _list_response(self: Any) -> Any:
    storage, function, _ = _asked(self)
    (name, _), _ = _key(storage, function, None)
    found = [config for (owner, _), config in sorted(_table(storage).items()) if owner == name]
    return 200, {}, json.dumps({"FunctionEventInvokeConfigs": found})


def install(patches: Patches) -> None:
    """Replace moto's event invoke configs."""
    patches.set_all(
        responses.LambdaResponse,
        {
            "put_function_event_invoke_config": _put_response,
            "update_function_event_invoke_config": _update_response,
            "get_function_event_invoke_config": _get_response,
            "delete_function_event_invoke_config": _delete_response,
            "list_function_event_invoke_configs": _list_response,
        },
    )
