"""The layers of one stack, each made when it is first asked for.

A stack has layer versions of its own: a layer version is replaced whenever its content changes, and CloudFormation
refuses to replace what another stack imports.

`perch` comes in two cuts. Predictors get the package without its control side, so that a change of control code is not
a new revision of every endpoint, with a rollout each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import AssetHashType, IgnoreMode
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk import layers
from cdk.settings import Settings

PACKAGE = "perch"
PREDICTOR_PACKAGE = "perch-predictor"
SETTINGS = "settings"

# Of the package, what no function runs; and, for predictors, what no prediction needs.
NOT_DEPLOYED = ("**/__pycache__", "**/*.pyc", "python/perch/local", "python/perch/cli", "python/perch/export")
CONTROL_SIDE = ("python/perch/app", "python/perch/aws", "python/perch/signing")


@dataclass(frozen=True, kw_only=True)
class LayerShelfProps:
    """`root` is the project's folder; `settings` decide the architecture, and are themselves a layer."""

    root: Path
    settings: Settings


class LayerShelf(Construct):
    """Hands out layer versions by name: `perch`, `perch-predictor`, `settings`, or a folder of requirements."""

    def __init__(self, scope: Construct, id_: str, *, props: LayerShelfProps) -> None:
        super().__init__(scope, id_)
        self._props = props
        self._made: dict[str, lambda_.LayerVersion] = {}

    def take(self, function: str, names: Sequence[str], folders: Sequence[Path]) -> list[lambda_.LayerVersion]:
        """Return the layers of one function.

        Args:
            function: its name, for the message.
            names: its layers, in the order in which they are unpacked.
            folders: its own code, which counts towards the limit.

        Raises:
            LayerError: a layer cannot be built, or all of it together is over Lambda's limit.
        """
        built = [self._build(name) for name in names if name in layers.REQUIREMENTS]
        own = [self._props.root / "layers" / PACKAGE] if {PACKAGE, PREDICTOR_PACKAGE} & set(names) else []
        layers.check_size(function, built, [*folders, *own])
        return [self._version(name) for name in names]

    def _build(self, name: str) -> layers.Layer:
        return layers.build(name, root=self._props.root, architecture=self._props.settings.architecture)

    def _version(self, name: str) -> lambda_.LayerVersion:
        if name not in self._made:
            code, description = self._code(name)
            self._made[name] = lambda_.LayerVersion(
                self,
                name.title().replace("-", ""),
                code=code,
                description=description,
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
            )
        return self._made[name]

    def _code(self, name: str) -> tuple[lambda_.Code, str]:
        if name == SETTINGS:
            folder = write_settings_layer(self._props.settings, root=self._props.root)
            return lambda_.Code.from_asset(str(folder)), "What perch.toml declares"
        if name in (PACKAGE, PREDICTOR_PACKAGE):
            exclude = [*NOT_DEPLOYED, *(CONTROL_SIDE if name == PREDICTOR_PACKAGE else ())]
            folder = self._props.root / "layers" / PACKAGE
            code = lambda_.Code.from_asset(str(folder), exclude=exclude, ignore_mode=IgnoreMode.GLOB)
            return code, "The package perch"
        layer = self._build(name)
        # The folder's name covers all that decides its content; hashing 100 MB at each synth would only take time.
        code = lambda_.Code.from_asset(
            str(layer.path), asset_hash_type=AssetHashType.CUSTOM, asset_hash=layer.path.name
        )
        return code, f"Packages for {name}, {layers.megabytes(layer.size)} unpacked"


def write_settings_layer(settings: Settings, *, root: Path) -> Path:
    """Write the layer that holds the package `perch_settings`, and return its folder.

    The folder is named for its content, so that two synths at once with different settings do not meet.
    """
    document = settings.as_endpoints_json()
    folder = root / ".perch" / "settings" / layers.digest_of(document)
    package = folder / "python" / "perch_settings"
    package.mkdir(parents=True, exist_ok=True)
    layers.write_whole(package / "__init__.py", '"""What perch.toml declares; see endpoints.json."""\n')
    layers.write_whole(package / "endpoints.json", document)
    return folder
