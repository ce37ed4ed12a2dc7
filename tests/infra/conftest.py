"""One synth for all tests of the templates, because the first one in a process takes seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdk.node import provide_node

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("store", "serving", "delivery", "observability")


@dataclass(frozen=True)
class Synthesized:
    """The templates by the last part of the stack's name, and what cdk-nag found."""

    outdir: Path
    templates: dict[str, dict[str, Any]]
    findings: list[str]

    def of_type(self, kind: str, stack: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the resources of a type, by logical id, in one stack or in all."""
        return {
            logical_id: resource
            for name, template in self.templates.items()
            if stack in (None, name)
            for logical_id, resource in template["Resources"].items()
            if resource["Type"] == kind
        }

    def properties(self, kind: str, stack: str | None = None) -> list[dict[str, Any]]:
        """Return the properties of the resources of a type."""
        return [resource.get("Properties", {}) for resource in self.of_type(kind, stack).values()]

    def function(self, name: str) -> dict[str, Any]:
        """Return the properties of one function."""
        (found,) = [p for p in self.properties("AWS::Lambda::Function") if p["FunctionName"] == name]
        return found


def synthesize(outdir: Path, *, root: Path = ROOT, settings: Path | None = None, nag: bool = False) -> Synthesized:
    """Synthesize a project folder in this process."""
    from aws_cdk import App, Validations
    from cdk_nag import AwsSolutionsChecks

    from cdk import service
    from cdk.settings import load

    app = App(context=dict(service.CONTEXT), analytics_reporting=False, outdir=str(outdir))
    wanted = load(settings or root / "perch.toml")
    service.assemble(app, wanted, root=root)
    if nag:
        Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    try:
        app.synth()
    except RuntimeError as error:
        if "ValidationFailed" not in str(error):
            raise
    templates = {stack: json.loads((outdir / f"{wanted.name}-{stack}.template.json").read_text()) for stack in STACKS}
    return Synthesized(outdir, templates, findings(outdir))


def declared(folder: Path, text: str, *, nag: bool = False) -> Synthesized:
    """Synthesize what a perch.toml in a folder of its own declares."""
    settings = folder / "perch.toml"
    settings.write_text(text)
    return synthesize(folder / "cdk.out", settings=settings, nag=nag)


def findings(outdir: Path) -> list[str]:
    """Return what cdk-nag's report names, as "rule at construct"."""
    report = outdir / "validation-report.json"
    if not report.exists():
        return []
    return [
        f"{violation['ruleName']} at {where['constructPath']}"
        for plugin in json.loads(report.read_text())["pluginReports"]
        for violation in plugin["violations"]
        for where in violation["violatingConstructs"]
    ]


@pytest.fixture(scope="session", autouse=True)
def _node() -> None:
    """Name Node before anything imports aws_cdk, as app.py does."""
    provide_node()


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The project's own templates, checked by cdk-nag's AwsSolutions pack."""
    return synthesize(tmp_path_factory.mktemp("cdk.out"), nag=True)
