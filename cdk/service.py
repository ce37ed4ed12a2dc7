"""The service: all stacks of one deployment, put together.

    observability ◄── delivery ──► store ◄── serving

Arrows show what imports what. Everything is derived from the settings, with no account, region or network in sight, so
the same templates go to AWS and to the local cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aws_cdk import App, Stack

from cdk.settings import Settings
from cdk.stacks.delivery import DeliveryStack, DeliveryStackProps
from cdk.stacks.observability import ObservabilityStack
from cdk.stacks.serving import ServingStack, ServingStackProps
from cdk.stacks.store import StoreStack

SETTINGS = "perch.toml"

# Set here rather than in cdk.json, which only the CDK's own command reads: `python app.py` has to give the same.
CONTEXT: Mapping[str, object] = {
    "@aws-cdk/aws-iam:minimizePolicies": True,
    # An export that another stack imports cannot be taken away: the store stays while anything uses it.
    "@aws-cdk/core:defaultCrossStackReferences": "strong",
}


def settings_path(app: App, environment: Mapping[str, str], *, root: Path) -> Path:
    """Return the settings file: `-c settings=FILE`, else PERCH_SETTINGS, else the project's own."""
    chosen = app.node.try_get_context("settings") or environment.get("PERCH_SETTINGS")
    return Path(str(chosen)) if chosen else root / SETTINGS


def assemble(app: App, settings: Settings, *, root: Path) -> tuple[Stack, ...]:
    """Make the stacks of a deployment.

    Args:
        app: what they are made in.
        settings: what to deploy.
        root: the project's folder, with `functions/` and `layers/`.

    Raises:
        LayerError: a layer cannot be built, or a function is too large.
    """
    name = settings.name
    store = StoreStack(app, f"{name}-store", settings=settings)
    serving = ServingStack(
        app,
        f"{name}-serving",
        props=ServingStackProps(root=root, settings=settings, store=store.bucket, table=store.table),
    )
    observability = ObservabilityStack(app, f"{name}-observability", settings=settings)
    delivery = DeliveryStack(
        app,
        f"{name}-delivery",
        props=DeliveryStackProps(
            root=root, settings=settings, store=store.bucket, table=store.table, topic=observability.topic
        ),
    )
    # By name only, which CloudFormation does not see: the functions that delivery drives should be there before it.
    delivery.add_stack_dependency(serving)
    return store, serving, observability, delivery
