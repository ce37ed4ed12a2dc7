"""Which functions exist, for the data plane: names, versions and weighted aliases of the strict Lambda API.

Resolving happens on every request, so what a name leads to is remembered until anything changes; only the throw of
the dice for a weighted alias is made each time. A version that is still Pending is never remembered.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.utils import get_backend, make_function_arn

from perch.local.ports import AsyncSettings, FunctionVersion, Refused, Target
from perch.local.strict import lambda_async
from perch.local.strict.code import layer_path, unpack
from perch.local.strict.lambda_errors import not_active
from perch.local.strict.lambda_functions import kept_of
from perch.local.strict.lambda_layers import content_of
from perch.local.strict.lambda_permissions import split_name
from perch.local.strict.lambda_state import LOCK, generation, state_of
from perch.local.strict.settings import current

DEFAULT_ACCOUNT = "123456789012"
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Choice:
    """What a qualifier leads to: `main`, or `other` for `weight` of the requests."""

    main: Target
    other: Target | None = None
    weight: float = 0.0


class MotoFunctions:
    """`Functions` on moto's Lambda backend of one account and region.

    `resolve` throws the dice of `StrictSettings.random`, so a run with the same seed and the same order of requests
    sends the same requests to the same versions.
    """

    def __init__(self, account_id: str = DEFAULT_ACCOUNT, region: str = DEFAULT_REGION) -> None:
        self._account_id = account_id
        self._region = region
        # Replaced as one: a thread that began before a change writes what it found into the table of before.
        self._known: tuple[tuple[int, int], dict[tuple[str, str | None], Choice]] = ((-1, -1), {})

    def resolve(self, function: str, qualifier: str | None = None) -> Target:
        """Find what one invocation must run; see `Functions.resolve`."""
        choice = self.find(function, qualifier)
        if choice.other is not None and current().random.random() < choice.weight:
            return choice.other
        return choice.main

    def find(self, function: str, qualifier: str | None = None) -> Choice:
        """Find both versions a qualifier may lead to, without throwing the dice; raises `Refused`."""
        storage = self._storage()
        now = (generation(), id(storage))
        known_at, known = self._known
        if now != known_at:
            known = {}
            self._known = (now, known)
        choice = known.get((function, qualifier))
        if choice is None:
            with LOCK:
                choice, settled = self._find(storage, function, qualifier)
            if settled:
                known[(function, qualifier)] = choice
        return choice

    def async_settings(self, function: str, qualifier: str | None = None) -> AsyncSettings:
        """Return how an asynchronous invocation of this qualifier is retried; raises `Refused` when unknown."""
        storage = self._storage()
        with LOCK:
            try:
                version = storage.get_function_by_name_with_qualifier(*split_name(storage, function, qualifier))
                return lambda_async.settings_of(storage, function, qualifier, version)
            except LambdaClientError as error:
                raise Refused("ResourceNotFoundException", str(error.message), 404) from None

    def _storage(self) -> Any:
        return get_backend(self._account_id, self._region)._lambdas

    def _find(self, storage: Any, function: str, qualifier: str | None) -> tuple[Choice, bool]:
        name, qualifier = split_name(storage, function, qualifier)
        arn = make_function_arn(self._region, self._account_id, name)
        entry = storage._functions.get(name)
        if entry is None or entry["latest"] is None:
            raise Refused("ResourceNotFoundException", f"Function not found: {arn}", 404)
        latest = entry["latest"]
        if qualifier is None or qualifier == "$LATEST":
            resource = name if qualifier is None else f"{name}:$LATEST"
            return self._choice([latest], latest, resource, via_alias=False)
        version = storage._get_version(name, qualifier)
        if version is not None:
            return self._choice([version], latest, f"{name}:{qualifier}", via_alias=False)
        alias = storage._aliases[latest.function_arn].get(qualifier)
        if alias is None:
            raise Refused("ResourceNotFoundException", f"Function not found: {arn}:{qualifier}", 404)
        weights = (alias.routing_config or {}).get("AdditionalVersionWeights") or {}
        targets = [self._of(storage, name, str(number)) for number in (alias.function_version, *weights)]
        weight = next(iter(weights.values()), 0.0)
        return self._choice(targets, latest, f"{name}:{qualifier}", via_alias=True, weight=weight)

    def _of(self, storage: Any, name: str, version: str) -> Any:
        return storage._functions[name]["latest"] if version == "$LATEST" else storage._get_version(name, version)

    def _choice(
        self, functions: list[Any], latest: Any, resource: str, *, via_alias: bool, weight: float = 0.0
    ) -> tuple[Choice, bool]:
        states = [state_of(function) for function in functions]
        for state in states:
            if state.state != "Active":
                raise not_active(state.state)
        reserved = latest.reserved_concurrency
        targets = [
            Target(
                function=describe(function),
                resource=resource,
                via_alias=via_alias,
                reserved=None if reserved is None else int(reserved),
            )
            for function in functions
        ]
        other = targets[1] if len(targets) > 1 else None
        return Choice(targets[0], other, weight), all(state.ready_at is None for state in states)


def describe(function: Any) -> FunctionVersion:
    """Describe one version of a moto `LambdaFunction` for the data plane, with its code on disk."""
    settings = current()
    environment = dict(function.environment_vars)
    handler = function.handler or ""
    layers: tuple[Path, ...]
    if function.package_type == "Image":
        code, layers, handler, environment = _of_image(function, environment)
    else:
        code = unpack(function.code_bytes, settings.cache / "functions")
        layers = _layer_paths(function)
    identity = json.dumps(
        [str(code), [str(layer) for layer in layers], handler, environment, function.memory_size, function.timeout],
        sort_keys=True,
    )
    return FunctionVersion(
        name=function.function_name,
        version=str(function.version),
        arn=function.function_arn,
        handler=handler,
        code=code,
        layers=layers,
        environment=environment,
        memory_mb=int(function.memory_size),
        timeout_s=float(function.timeout),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
        snap_start=kept_of(function).get("SnapStart", {}).get("ApplyOn") == "PublishedVersions"
        and str(function.version) != "$LATEST",
    )


def _layer_paths(function: Any) -> tuple[Path, ...]:
    backend = get_backend(function.account_id, function.region)
    found = []
    for layer in function.layers:
        version = content_of(backend._layers, layer["Arn"])
        if version is None or not version.code_bytes:
            continue
        path = layer_path(version.code_bytes, version.code_sha_256, current().cache / "layers")
        if path is not None:
            found.append(path)
    return tuple(found)


def _of_image(function: Any, environment: dict[str, str]) -> tuple[Path, tuple[Path, ...], str, dict[str, str]]:
    from perch.local.deploy.images import ImageStore  # noqa: PLC0415 - deploy builds on strict, this one step goes back

    uri = function.code.get("ImageUri", "")
    digest = function.code.get("ResolvedImageUri", "")
    store = current().image_store
    image = ImageStore(store).find(digest or uri) if store is not None else None
    if image is None:
        raise Refused(
            "InvalidParameterValueException",
            f"The image {uri} of function {function.function_name} is not in the local image store ({store}). "
            "Build and push it with the container stand-in.",
            400,
        )
    command = function.image_config.cmd or list(image.command)
    layers = (image.root / "opt" / "python",) if (image.root / "opt" / "python").is_dir() else ()
    # Where the task root lies is this machine's affair, not the image's.
    of_image = {name: value for name, value in image.environment.items() if name != "LAMBDA_TASK_ROOT"}
    return image.task_root, layers, command[0] if command else "", {**of_image, **environment}
