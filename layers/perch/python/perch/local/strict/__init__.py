"""Moto made strict: the AWS API of the local cloud, held to AWS's documents where Perch depends on them.

`install(settings)` replaces methods of moto's backends in this process and may be called again (the settings are then
replaced); `uninstall()` puts moto back as it was. It works the same under moto's server and under `mock_aws()`, so
control code is tested against the same rules that `perch up` enforces. One file a service; each says what it leaves
out. Everything that is not named here is moto's own behaviour.
"""

from __future__ import annotations

from perch.local.patches import Patches
from perch.local.strict import (
    change_sets,
    cloudformation,
    dynamodb,
    lambda_aliases,
    lambda_async,
    lambda_functions,
    lambda_invoke,
    lambda_layers,
    lambda_permissions,
    logs,
    modules,
    remembered,
    routes,
    s3_ranges,
)
from perch.local.strict import settings as _settings
from perch.local.strict.functions import MotoFunctions
from perch.local.strict.logs import MotoLogSink
from perch.local.strict.resources import bucket_policy
from perch.local.strict.routes import MotoRoutes
from perch.local.strict.settings import StrictSettings

__all__ = ["MotoFunctions", "MotoLogSink", "MotoRoutes", "StrictSettings", "install", "uninstall"]

_patches = Patches()
_installed = False
_PARTS = (
    lambda_functions,
    lambda_aliases,
    lambda_permissions,
    lambda_async,
    lambda_layers,
    lambda_invoke,
    routes,
    logs,
    change_sets,
    cloudformation,
    bucket_policy,
    dynamodb,
    s3_ranges,
    modules,
    remembered,
)


def install(settings: StrictSettings | None = None) -> StrictSettings:
    """Make moto strict in this process and return the settings in force; calling it again changes only those."""
    global _installed  # noqa: PLW0603 - moto's classes are one a process
    settings = settings if settings is not None else StrictSettings()
    _settings.use(settings)
    if not _installed:
        _installed = True
        for part in _PARTS:
            part.install(_patches)
    return settings


def uninstall() -> None:
    """Put moto back as it was."""
    global _installed  # noqa: PLW0603 - as above
    _patches.undo()
    _installed = False
    _settings.use(StrictSettings())
