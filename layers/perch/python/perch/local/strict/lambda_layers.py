"""Layers: moto forgets a layer version's content when it is deleted, while functions that have it must go on.

AWS lets a deleted layer version live on in the functions that have it. Moto looks layers up again by ARN, so the
deleted version is kept aside for that look-up only.
"""

from __future__ import annotations

from typing import Any

from moto.awslambda import models

from perch.local.patches import Patches


class _Originals:
    delete_version = models.Layer.delete_version
    by_arn = models.LayerStorage.get_layer_version_by_arn


def _delete_version(self: Any, layer_version: str) -> None:
    gone = self.layer_versions.get(str(layer_version))
    if gone is not None:
        self.__dict__.setdefault("strict_deleted", {})[gone.arn] = gone
    _Originals.delete_version(self, layer_version)


def content_of(storage: Any, arn: str) -> Any:
    """Return a layer version by ARN, deleted ones included; None when it never was."""
    found = _Originals.by_arn(storage, arn)
    if found is not None:
        return found
    for layer in storage._layers.values():
        deleted = layer.__dict__.get("strict_deleted", {}).get(arn)
        if deleted is not None:
            return deleted
    return None


def install(patches: Patches) -> None:
    """Keep deleted layer versions for the functions that have them."""
    patches.set(models.Layer, "delete_version", _delete_version)
