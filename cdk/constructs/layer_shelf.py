"""The layers of one stack, each made when it is first asked for.

A stack has layer versions of its own: a layer version is replaced whenever its content changes, and CloudFormation
refuses to replace what another stack imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import AssetHashType
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk import layers
from cdk.package_layer import PACKAGE, PREDICTOR_PACKAGE, cut
from cdk.settings import Settings

SETTINGS = "settings"


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
        self._cuts: dict[str, Path] = {}

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
        own = [self._cut(name) for name in names if name in (PACKAGE, PREDICTOR_PACKAGE)]
        layers.check_size(function, built, [*folders, *own])
        return [self._version(name) for name in names]

    def _build(self, name: str) -> layers.Layer:
        return layers.build(name, root=self._props.root, architecture=self._props.settings.architecture)

    def _cut(self, name: str) -> Path:
        if name not in self._cuts:  # every function takes one, and all modules are read to name it
            self._cuts[name] = cut(name, root=self._props.root)
        return self._cuts[name]

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
            return _named_by_content(self._cut(name)), "The package perch"
        layer = self._build(name)
        return _named_by_content(layer.path), f"Packages for {name}, {layers.megabytes(layer.size)} unpacked"


def _named_by_content(folder: Path) -> lambda_.Code:
    """Return a built folder as code: its name covers all that decides its content, so nobody has to read it again."""
    return lambda_.Code.from_asset(str(folder), asset_hash_type=AssetHashType.CUSTOM, asset_hash=folder.name)


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
