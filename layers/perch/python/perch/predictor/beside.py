"""What a manifest beside the artifact adds to a model: the ranges of its inputs, of formats that cannot hold them.

    pointer ─► `perch.json`, by S3 version ─► verified like the artifact ─► ranges added to the model's signature

Only a pointer that pins a manifest leads here, so that a model without such ranges pays for nothing. Registration has
read the same bytes by the same rules, so what does not fit here is a model that says something else of itself than its
file did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perch.artifacts.data import Data
from perch.artifacts.ranges import add_ranges
from perch.artifacts.signature import Signature
from perch.domain.formats import FORMATS
from perch.domain.pointer import Pointer


def with_manifest(signature: Signature, pointer: Pointer, data: Data) -> Signature:
    """Return a loaded model's signature with what its verified manifest adds.

    Raises:
        ArtifactRefused: it does not fit the model.
        ValueError: it is not JSON.
    """
    document: Mapping[str, Any] = json.loads(bytes(data))
    if FORMATS[pointer.format].declared and signature.is_matrix:
        # Only the manifest knew a name for what the model takes, and its ranges may use it.
        [declared] = document["signature"]["inputs"]
        signature = replace(signature, inputs=(replace(signature.inputs[0], name=str(declared["name"])),))
    return add_ranges(signature, document["ranges"])
