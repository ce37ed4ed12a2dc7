"""Predictor functions: what $LATEST carries, publishing a revision, the alias and its weights, and qualified invokes.

The alias has one writer, the rollout driver (and the roll-back, which outranks it). Forward moves carry the RevisionId
that was read *before* the state they were decided on, so a move that was overtaken by a roll-back fails
(PreconditionFailedException). A roll-back carries none and reads back until it holds.

Sources: Lambda API reference (GetAlias, UpdateAlias, PublishVersion, UpdateFunctionConfiguration); "Lambda function
states": an update fails with ResourceConflictException while LastUpdateStatus is InProgress.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from perch.aws.trouble import code_of
from perch.domain.errors import Conflict, NotFound, NotReady
from perch.domain.model import Pointer
from perch.domain.rollout import Routing

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

ALIAS = "live"
GREEN = "green"
POINTER, EXPERIMENT = "PERCH_POINTER", "PERCH_EXPERIMENT"
_ABSENT = "ResourceNotFoundException"
_STALE = {"PreconditionFailedException"}
_BUSY = {"ResourceConflictException", "TooManyRequestsException", "ServiceException", "ThrottlingException"}


@dataclass(frozen=True, kw_only=True)
class Alias:
    """The alias `live` as it was read, with the RevisionId that a forward move has to show."""

    routing: Routing
    revision_id: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One version of a function. `ready` is whether AWS finished the last change; `failure` is why it never will.

    `fingerprint` identifies code and configuration without the model pointer and the experiment: it changes when a
    deployment changes what runs, and not when a model does.
    """

    version: str
    revision_id: str
    code_sha256: str
    environment: dict[str, str]
    fingerprint: str
    ready: bool
    failure: str | None = None

    @property
    def pointer(self) -> Pointer | None:
        """The model that this version serves; None for the placeholder."""
        text = self.environment.get(POINTER)
        return Pointer.from_json(text) if text else None

    @property
    def experiment(self) -> str | None:
        """The text of the experiment whose variants this version serves, if any."""
        return self.environment.get(EXPERIMENT)


class Functions:
    """Predictor functions, in our words."""

    def __init__(self, client: LambdaClient) -> None:
        self._client = client

    def alias(self, function: str) -> Alias:
        """Read the alias `live`. Raises NotFound if the endpoint is not deployed."""
        try:
            answer = self._client.get_alias(FunctionName=function, Name=ALIAS)
        except ClientError as error:
            if code_of(error) != _ABSENT:
                raise
            raise NotFound(f"function {function} has no alias {ALIAS!r}; deploy the serving stack first") from error
        return Alias(routing=_routing(answer), revision_id=answer["RevisionId"])

    def route(self, function: str, routing: Routing, *, revision_id: str | None = None) -> Alias:
        """Point the alias; with `revision_id` only if nobody moved it since that was read.

        Raises:
            Conflict: somebody moved it.
            NotReady: Lambda is busy or throttles; try again.
        """
        weights = {routing.other: routing.weight} if routing.other else {}
        guard: Any = {"RevisionId": revision_id} if revision_id else {}
        try:
            answer = self._client.update_alias(
                FunctionName=function,
                Name=ALIAS,
                FunctionVersion=routing.version,
                RoutingConfig={"AdditionalVersionWeights": weights},
                **guard,
            )
        except ClientError as error:
            raise _translated(error, f"alias {ALIAS} of {function}") from error
        return Alias(routing=_routing(answer), revision_id=answer["RevisionId"])

    def point_green(self, function: str, version: str) -> None:
        """Let the alias `green` name a version that waits for the traffic, so that anybody allowed to may try it.

        Raises:
            NotReady, Conflict: as for `route`.
        """
        try:
            try:
                self._client.update_alias(FunctionName=function, Name=GREEN, FunctionVersion=version)
            except ClientError as error:
                if code_of(error) != _ABSENT:
                    raise
                self._client.create_alias(FunctionName=function, Name=GREEN, FunctionVersion=version)
        except ClientError as error:
            raise _translated(error, f"alias {GREEN} of {function}") from error

    def configuration(self, function: str, version: str = "$LATEST") -> Configuration:
        """Read one version's configuration. Raises NotFound."""
        try:
            answer: Any = self._client.get_function_configuration(FunctionName=function, Qualifier=version)
        except ClientError as error:
            if code_of(error) != _ABSENT:
                raise
            raise NotFound(f"function {function} has no version {version}") from error
        return _configuration(answer)

    def point_latest(
        self, function: str, pointer: Pointer, latest: Configuration, *, experiment: str | None = None
    ) -> None:
        """Put the pointer (and the experiment, or none) into $LATEST's environment, if $LATEST is still `latest`.

        Raises:
            Conflict, NotReady: as for `route`.
        """
        others = {k: v for k, v in latest.environment.items() if k not in (POINTER, EXPERIMENT)}
        ours = {POINTER: pointer.to_json()} | ({EXPERIMENT: experiment} if experiment else {})
        try:
            self._client.update_function_configuration(
                FunctionName=function,
                Environment={"Variables": others | ours},
                RevisionId=latest.revision_id,
            )
        except ClientError as error:
            raise _translated(error, f"$LATEST of {function}") from error

    def publish(self, function: str, latest: Configuration, description: str) -> Configuration:
        """Publish $LATEST as a new version, if it is still what `latest` says.

        When nothing changed since the last publication Lambda returns that version again: doing it twice is harmless.

        Raises:
            Conflict, NotReady: as for `route`.
        """
        try:
            answer: Any = self._client.publish_version(
                FunctionName=function,
                CodeSha256=latest.code_sha256,
                RevisionId=latest.revision_id,
                Description=description[:256],
            )
        except ClientError as error:
            raise _translated(error, f"$LATEST of {function}") from error
        return _configuration(answer)

    def ask(self, function: str, version: str, event: dict[str, Any]) -> tuple[int, Any]:
        """Invoke one version with an HTTP event; return its status code and its decoded answer.

        A function error (a crash, a time-out) is status 502 with Lambda's message and the error's `type`.

        Raises:
            NotReady: Lambda throttles or the version is not Active; try again.
        """
        status, body, _ = self.ask_for_log(function, version, event, log=False)
        return status, body

    def ask_for_log(
        self, function: str, version: str, event: dict[str, Any], *, log: bool = True
    ) -> tuple[int, Any, list[str]]:
        """Do what `ask` does, and also return the lines of the last 4 KB of the function's log (none without `log`).

        Raises:
            NotReady: as for `ask`.
        """
        try:
            answer = self._client.invoke(
                FunctionName=function,
                Qualifier=version,
                LogType="Tail" if log else "None",
                Payload=json.dumps(event).encode(),
            )
        except ClientError as error:
            raise _translated(error, f"version {version} of {function}") from error
        lines = base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace").splitlines()
        payload = json.loads(answer["Payload"].read() or b"null")
        if "FunctionError" in answer:
            told = payload if isinstance(payload, dict) else {"errorMessage": str(payload)}
            said = told.get("errorMessage", "function error")
            return 502, {"error": said, "type": told.get("errorType", "")}, lines
        return int(payload.get("statusCode", 200)), json.loads(payload.get("body") or "null"), lines


def _routing(answer: Any) -> Routing:
    weights: dict[str, float] = (answer.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    other = next(((v, float(w)) for v, w in weights.items() if w), None)
    return Routing(
        version=answer["FunctionVersion"], other=other[0] if other else None, weight=other[1] if other else 0.0
    )


def _configuration(answer: Any) -> Configuration:
    environment: dict[str, str] = dict(answer.get("Environment", {}).get("Variables", {}))
    what_runs = {
        "code": answer["CodeSha256"],
        "layers": [layer["Arn"] for layer in answer.get("Layers", [])],
        "memory": answer.get("MemorySize"),
        "timeout": answer.get("Timeout"),
        "runtime": answer.get("Runtime"),
        "handler": answer.get("Handler"),
        "architectures": answer.get("Architectures"),
        "role": answer.get("Role"),
        "storage": answer.get("EphemeralStorage"),
        "image": answer.get("ImageConfigResponse"),
        "environment": {k: v for k, v in environment.items() if k not in (POINTER, EXPERIMENT)},
    }
    if (snap_start := answer.get("SnapStart", {}).get("ApplyOn", "None")) != "None":
        what_runs["snap_start"] = snap_start
    states = (answer.get("State", "Active"), answer.get("LastUpdateStatus", "Successful"))
    failed = "Failed" in states
    return Configuration(
        version=answer["Version"],
        revision_id=answer["RevisionId"],
        code_sha256=answer["CodeSha256"],
        environment=environment,
        fingerprint=hashlib.sha256(json.dumps(what_runs, sort_keys=True).encode()).hexdigest()[:16],
        ready=states[0] in ("Active", "Inactive") and states[1] == "Successful",
        failure=(answer.get("StateReason") or answer.get("LastUpdateStatusReason") or "Lambda gave no reason")
        if failed
        else None,
    )


def _translated(error: ClientError, what: str) -> Exception:
    code = code_of(error)
    if code in _STALE:
        return Conflict(f"{what} was changed by somebody else meanwhile; read it again")
    if code in _BUSY:
        return NotReady(f"{what} is busy: {error.response['Error'].get('Message', code)}")
    return error
