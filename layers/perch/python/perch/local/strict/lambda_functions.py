"""Functions and versions of the Lambda API, strict where moto is kind.

Create and update keep the properties that moto drops (package type and image, architectures, SnapStart, dead-letter
and logging configuration), rotate the revision id, and refuse a stale one or a second change while the first has not
settled. PublishVersion checks CodeSha256 and RevisionId, gives back the last version when nothing was updated since,
never reuses a number (not even for a function deleted and made again), and freezes code and configuration.

Left out: code signing, VPC and file systems, provisioned concurrency, and quotas other than the environment's 4 KB.
"""

from __future__ import annotations

import copy
import json
from typing import Any
from urllib.parse import unquote

from moto.awslambda import models, responses
from moto.awslambda.exceptions import UnknownFunctionException

from perch.local.patches import Patches
from perch.local.strict.lambda_errors import LambdaError, invalid
from perch.local.strict.lambda_state import LOCK, begin_life, changed, refuse_if_busy, refuse_if_stale, state_of, touch
from perch.local.strict.settings import current

KEPT = ("DeadLetterConfig", "LoggingConfig", "SnapStart")
"""Properties that are stored as they came and given back in the configuration."""

MAX_ENVIRONMENT = 4096
RESERVED_KEYS = frozenset(
    {
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
    }
)  # fmt: skip


def check_environment(variables: dict[str, str]) -> None:
    """Raise InvalidParameterValueException for variables that Lambda does not take."""
    reserved = sorted(RESERVED_KEYS & variables.keys())
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    if len(json.dumps(variables, separators=(",", ":")).encode()) > MAX_ENVIRONMENT:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided exceeded the 4KB limit."
        )


def latest_of(storage: Any, name: str) -> Any:
    """Return $LATEST of a function named by name or ARN; raises ResourceNotFoundException."""
    return storage.get_function_by_name_or_arn_with_qualifier(name, "$LATEST")


def kept_of(function: Any) -> dict[str, Any]:
    """Return the kept properties of a function; never changed in place, so versions may share it."""
    kept: dict[str, Any] = function.__dict__.get("strict_kept", {})
    return kept


def _keep(function: Any, spec: dict[str, Any]) -> None:
    given = {name: spec[name] for name in KEPT if name in spec}
    if given:
        function.strict_kept = {**kept_of(function), **given}


class _Originals:
    """Moto's own methods, which the replacements build on."""

    create_function = models.LambdaBackend.create_function
    delete_function = models.LambdaBackend.delete_function
    put_function_concurrency = models.LambdaBackend.put_function_concurrency
    delete_function_concurrency = models.LambdaBackend.delete_function_concurrency
    get_configuration = models.LambdaFunction.get_configuration
    update_configuration = models.LambdaFunction.update_configuration
    set_function_code = models.LambdaFunction._set_function_code
    set_configuration_qualifier = responses.LambdaResponse._set_configuration_qualifier


# --- functions -------------------------------------------------------------------------------------------------------


def _create_function(self: Any, spec: dict[str, Any]) -> Any:
    with LOCK:
        spec = copy.deepcopy({**spec, "Publish": False}) | {"Code": spec["Code"]}
        check_environment(spec.get("Environment", {}).get("Variables", {}))
        if spec.get("Code", {}).get("ImageUri"):
            spec["PackageType"] = "Image"
        function = _Originals.create_function(self, spec)
        _keep(function, spec)
        begin_life(function)
        function.code_or_config_updated = False
        return function


def _create_function_response(self: Any) -> Any:
    body = self.json_body
    name = body["FunctionName"].rsplit(":", 1)[-1]
    with LOCK:
        try:
            self.backend.get_function(name, None)
        except UnknownFunctionException:
            function = self.backend.create_function(body)
            if body.get("Publish"):
                function = self.backend.publish_version(name)
            return 201, {"status": 201}, json.dumps(function.get_configuration(on_create=True))
    raise LambdaError("ResourceConflictException", f"Function already exist: {name}", 409)


def _get_configuration(self: Any, on_create: bool = False) -> dict[str, Any]:
    state = state_of(self)
    configuration: dict[str, Any] = _Originals.get_configuration(self, on_create)
    kept = kept_of(self)
    snap_start = kept.get("SnapStart", {}).get("ApplyOn", "None")
    optimised = snap_start == "PublishedVersions" and str(self.version) != "$LATEST" and state.state == "Active"
    configuration |= {
        "RevisionId": state.revision_id,
        "State": state.state,
        "SnapStart": {"ApplyOn": snap_start, "OptimizationStatus": "On" if optimised else "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
        | kept.get("LoggingConfig", {}),
    }
    if state.state == "Pending":
        configuration |= {"StateReason": "The function is being created.", "StateReasonCode": "Creating"}
    if not on_create:
        configuration["LastUpdateStatus"] = state.update
    if kept.get("DeadLetterConfig", {}).get("TargetArn"):
        configuration["DeadLetterConfig"] = kept["DeadLetterConfig"]
    return configuration


def _set_configuration_qualifier(configuration: Any, function_name: str, qualifier: str) -> Any:
    # An alias answers with its own ARN and with the version it points to.
    configuration = _Originals.set_configuration_qualifier(configuration, function_name, qualifier)
    if qualifier and not qualifier.isdigit() and qualifier != "$LATEST":
        configuration["FunctionArn"] = configuration["FunctionArn"].rsplit(":", 1)[0] + f":{qualifier}"
    return configuration


def apply_configuration(function: Any, changes: dict[str, Any]) -> None:
    """Write configuration changes (names as in UpdateFunctionConfiguration) to $LATEST."""
    changes = copy.deepcopy(changes)
    if "Environment" in changes:
        variables = (changes["Environment"] or {}).get("Variables", {})
        check_environment(variables)
        changes["Environment"] = {"Variables": variables}
    _Originals.update_configuration(function, changes)
    _keep(function, changes)
    if "EphemeralStorage" in changes:
        function.ephemeral_storage = changes["EphemeralStorage"]["Size"]
    if "TracingConfig" in changes:
        function.tracing_config = changes["TracingConfig"]
    if "ImageConfig" in changes:
        function.image_config = models.ImageConfig(changes["ImageConfig"])
    if "KMSKeyArn" in changes:
        function.kms_key_arn = changes["KMSKeyArn"]
    changed(function)


def _update_function_configuration(self: Any, function_name: str, qualifier: str, body: dict[str, Any]) -> Any:  # noqa: ARG001 - moto's signature
    with LOCK:
        function = latest_of(self._lambdas, function_name)
        refuse_if_busy(function)
        refuse_if_stale(function, body.get("RevisionId"))
        apply_configuration(function, body)
        return function.get_configuration()


def apply_code(function: Any, code: dict[str, Any]) -> None:
    """Give $LATEST other code (S3Bucket and S3Key, ZipFile in base64, or ImageUri)."""
    function._set_function_code(code)
    if code.get("Architectures"):
        function.architectures = code["Architectures"]
    function.code_or_config_updated = True
    function.last_modified = models.iso_8601_datetime_with_nanoseconds()
    changed(function)


def _update_function_code(self: Any, function_name: str, qualifier: str, body: dict[str, Any]) -> Any:  # noqa: ARG001
    with LOCK:
        function = latest_of(self._lambdas, function_name)
        refuse_if_busy(function)
        refuse_if_stale(function, body.get("RevisionId"))
        if body.get("DryRun"):
            return function.get_configuration()
        apply_code(function, body)
        if body.get("Publish"):
            function = publish(self._lambdas, function.function_name)
        return function.get_configuration()


def _set_function_code(self: Any, spec: dict[str, Any]) -> None:
    uri = spec.get("ImageUri")
    store = current().image_store
    if uri is None or store is None:
        _Originals.set_function_code(self, spec)
        return
    from perch.local.deploy.images import ImageStore  # noqa: PLC0415 - deploy builds on strict, this one step goes back

    image = ImageStore(store).find(uri)
    if image is None:
        raise invalid(f"Source image {uri} does not exist. Provide a valid source image.")
    self.code = {"ImageUri": uri, "ResolvedImageUri": image.digest}
    self.code_sha_256, self.code_size, self.code_bytes = image.digest.removeprefix("sha256:"), 0, b""


# --- versions --------------------------------------------------------------------------------------------------------


def publish(
    storage: Any,
    name_or_arn: str,
    description: str | None = None,
    code_sha256: str | None = None,
    revision_id: str | None = None,
) -> Any:
    """Publish $LATEST as a new version, or return the last version when nothing was updated since.

    Raises ResourceNotFoundException (404), PreconditionFailedException (412), InvalidParameterValueException (400).
    """
    latest = latest_of(storage, name_or_arn)
    name = latest.function_name
    refuse_if_stale(latest, revision_id)
    if code_sha256 and code_sha256 != latest.code_sha_256:
        raise invalid(
            f"CodeSHA256 ({code_sha256}) is different from current CodeSHA256 in $LATEST ({latest.code_sha_256}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )
    versions = storage._functions[name]["versions"]
    counters: dict[str, int] = storage.__dict__.setdefault("strict_last_version", {})
    if versions and versions[-1].version == counters.get(name) and not latest.code_or_config_updated:
        return versions[-1]
    number = counters[name] = counters.get(name, 0) + 1
    version = copy.copy(latest)
    version.set_version(number)
    version.environment_vars = dict(latest.environment_vars)
    version.layers = list(latest.layers)
    version.code = dict(latest.code)
    version.policy = models.Policy(version)  # each qualifier has a policy of its own
    if description is not None:
        version.description = description
    begin_life(version)
    latest.code_or_config_updated = False
    versions.append(version)
    storage._arns[version.function_arn] = version
    return version


def _publish_version(self: Any, function_name: str, description: str | None = None) -> Any:
    with LOCK:
        return publish(self._lambdas, function_name, description)


def _publish_version_response(self: Any) -> Any:
    name = unquote(self.path.split("/")[-2])
    body = json.loads(self.body) if self.body else {}
    with LOCK:
        refuse_if_busy(latest_of(self.backend._lambdas, name))
        version = publish(
            self.backend._lambdas, name, body.get("Description"), body.get("CodeSha256"), body.get("RevisionId")
        )
    return 201, {"status": 201}, json.dumps(version.get_configuration())


def _delete_function(self: Any, function_name: str, qualifier: str | None = None) -> None:
    storage = self._lambdas
    with LOCK:
        if function_name.startswith("arn:"):
            _, name, in_name = storage.split_function_arn(function_name)
        else:
            name, _, in_name = function_name.partition(":")
        qualifier = in_name or qualifier
        if qualifier == "$LATEST":
            raise invalid("$LATEST version cannot be deleted without deleting the function.")
        if qualifier:
            if not qualifier.isdigit():
                raise invalid("Deletion of aliases is not currently supported.")
            users = [alias.name for alias in storage.list_aliases(name) if qualifier in versions_of(alias)]
            if users:
                raise LambdaError(
                    "ResourceConflictException",
                    f"Version {qualifier} of function {name} cannot be deleted: alias {', '.join(users)} points to it.",
                    409,
                )
        else:
            settings: dict[tuple[str, str], Any] = storage.__dict__.get("strict_event_invoke", {})
            for key in [key for key in settings if key[0] == name]:
                del settings[key]
        _Originals.delete_function(self, name, qualifier)
        touch()


def versions_of(alias: Any) -> set[str]:
    """Return the versions an alias sends requests to."""
    weights = (alias.routing_config or {}).get("AdditionalVersionWeights") or {}
    return {str(alias.function_version), *weights}


# --- concurrency -----------------------------------------------------------------------------------------------------


def _put_function_concurrency(self: Any, function_name: str, reserved_concurrency: Any) -> Any:
    with LOCK:
        result = _Originals.put_function_concurrency(self, function_name, reserved_concurrency)
        touch()
        return result


def _delete_function_concurrency(self: Any, function_name: str) -> Any:
    with LOCK:
        result = _Originals.delete_function_concurrency(self, function_name)
        touch()
        return result


def install(patches: Patches) -> None:
    """Make functions and versions strict."""
    patches.set_all(
        models.LambdaBackend,
        {
            "create_function": _create_function,
            "update_function_configuration": _update_function_configuration,
            "update_function_code": _update_function_code,
            "publish_version": _publish_version,
            "delete_function": _delete_function,
            "put_function_concurrency": _put_function_concurrency,
            "delete_function_concurrency": _delete_function_concurrency,
        },
    )
    patches.set_all(
        models.LambdaFunction,
        {"get_configuration": _get_configuration, "_set_function_code": _set_function_code},
    )
    patches.set_all(
        responses.LambdaResponse,
        {
            "create_function": _create_function_response,
            "publish_version": _publish_version_response,
            "_set_configuration_qualifier": staticmethod(_set_configuration_qualifier),
        },
    )
