"""MLflow model folders: which file in one is the model, by `MLmodel`; nothing of MLflow's ever loads it.

    MLmodel (YAML without tags and anchors) ─► a flavour that is served ─► the one file of it, by its own format

MLflow's own loader imports the module that `python_function` names, and code that lies in the folder. Here a folder is
only taken if MLflow itself would load just the named file with the flavour's own module; run id, versions and the
recorded signature are kept as metadata.

Left out, and refused in words: flavours without a format of ours (pytorch, transformers, python models, …), code paths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perch.domain.names import is_name

from .errors import ArtifactRefused

MLMODEL = "MLmodel"
BESIDE = frozenset(
    {
        *("conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"),
        *("input_example.json", "serving_input_example.json"),
    }
)
"""What else MLflow writes into such a folder."""

MAX_BYTES, MAX_TEXT = 100_000, 2_000
MAX_DEPTH = 40
"""Of brackets inside each other. The reader looks at all that are open for each that it meets, so that a hundred
thousand would take it hours."""
MAX_EVENTS = 4_000
"""Names, values, and where lists and objects begin and end; MLflow writes a few hundred. The reader takes a tenth of a
millisecond for each, and a hundred kilobytes have room for fifty thousand."""

_WORDS = frozenset({"tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"})
"""What a plain word may stand for besides itself. Numbers are not read: one of YAML's, to the base of 60, takes seconds
to add up, and a version 1.10 would become 1.1."""

FILES = {
    "onnx": ("data", "onnx_version"),
    "xgboost": ("data", "xgb_version"),
    "lightgbm": ("data", "lgb_version"),
    "sklearn": ("pickled_model", "sklearn_version"),
}
"""Of each flavour that is served: what names its file, and its library's version."""

_NUMBERS = {
    "double": "FP64",
    "float": "FP64",
    "long": "FP64",
    "integer": "FP64",
    "boolean": "FP64",
    "float64": "FP64",
    "float32": "FP64",
    "int64": "FP64",
    "int32": "FP64",
}
_LABELS = {"long": "INT64", "integer": "INT64", "boolean": "INT64", "int64": "INT64", "int32": "INT64", "bool": "INT64",
           "string": "BYTES", "str": "BYTES", "object": "BYTES"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MLflowModel:
    """What an `MLmodel` says: the file's name, facts to keep, and a signature if one of a matrix was recorded."""

    artifact: str
    metadata: Mapping[str, Any]
    signature: Mapping[str, Any] | None

    @property
    def manifest(self) -> dict[str, Any]:
        """The same as the document of a `perch.json`."""
        document: dict[str, Any] = {"artifact": self.artifact, "metadata": dict(self.metadata)}
        return document | ({"signature": dict(self.signature)} if self.signature else {})


def read_mlmodel(data: bytes) -> MLflowModel:
    """Read an `MLmodel` file. Raises `ArtifactRefused`."""
    document = _yaml(data)
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(one, dict) for one in flavors.values()):
        raise ArtifactRefused(f"{MLMODEL} names no flavors")
    name = next((flavor for flavor in FILES if flavor in flavors), None)
    if name is None:
        listed = ", ".join(sorted(str(flavor)[:40] for flavor in flavors)) or "none"
        raise ArtifactRefused(f"{MLMODEL} has flavors {listed}; served are {', '.join(FILES)}, or export to ONNX")
    _refuse_code(flavors, name)
    said, version = FILES[name]
    artifact = flavors[name].get(said)
    if not isinstance(artifact, str) or not is_name(artifact):
        raise ArtifactRefused(f"{MLMODEL} names {str(artifact)[:60]!r} as the model; it has to be a file of the folder")
    facts = {
        "mlflow.flavor": name,
        f"mlflow.{version}": flavors[name].get(version),
        "mlflow.version": document.get("mlflow_version"),
        "mlflow.run_id": document.get("run_id"),
        "mlflow.model_id": document.get("model_id"),
        "mlflow.created": document.get("utc_time_created"),
    }
    recorded = document.get("signature")
    signature = recorded if isinstance(recorded, dict) else {}
    facts |= {f"mlflow.signature.{side}": signature.get(side) for side in ("inputs", "outputs")}
    return MLflowModel(
        artifact=artifact,
        metadata={key: str(value)[:MAX_TEXT] for key, value in facts.items() if value is not None},
        signature=_signature(signature),
    )


def _yaml(data: bytes) -> dict[str, Any]:
    """The document, of texts, true, false and null; an anchor could make it larger than its text."""
    import yaml  # noqa: PLC0415 - the predictor imports this package and has no need of YAML

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types here
        yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
            first: [(tag, pattern) for tag, pattern in resolvers if tag in _WORDS]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    if len(data) > MAX_BYTES:
        raise ArtifactRefused(f"{MLMODEL} has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    if _nesting(data) > MAX_DEPTH:
        raise ArtifactRefused(f"{MLMODEL} is not plain YAML: more than {MAX_DEPTH} brackets are open at once")
    try:
        for number, event in enumerate(yaml.parse(data, Loader=Loader)):
            if number >= MAX_EVENTS:
                raise ArtifactRefused(f"{MLMODEL} is larger than any of MLflow's: over {MAX_EVENTS:,} names and values")
            if getattr(event, "anchor", None):
                raise ArtifactRefused(f"{MLMODEL} repeats parts of itself by YAML anchors, which MLflow never writes")
            if getattr(event, "tag", None):
                raise ArtifactRefused(f"{MLMODEL} is not plain YAML: it says of what type a value is, {event.tag[:60]}")
        document = yaml.load(data, Loader)  # noqa: S506 - a safe loader, see above
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, ValueError) as error:
        raise ArtifactRefused(f"{MLMODEL} is not plain YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(document, dict):
        raise ArtifactRefused(f"{MLMODEL} is not plain YAML of names and values")
    return document


def _nesting(data: bytes) -> int:
    """How many brackets are open at most; those in texts count too, as they are closed there."""
    depth = most = 0
    for byte in data:
        depth = max(0, depth + (byte in b"[{") - (byte in b"]}"))
        most = max(most, depth)
    return most


def _refuse_code(flavors: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """What MLflow would run besides the flavour's own loader is never run here, so the model would be another one."""
    for flavor in flavors.values():
        for key in ("code", "model_code_path", "python_model", "loader_module"):
            value = flavor.get(key)
            if value and (key, value) != ("loader_module", f"mlflow.{name}"):
                raise ArtifactRefused(
                    f"{MLMODEL} brings code of its own ({key}: {str(value)[:60]!r}), which is never run; "
                    "log the model without it, or export to ONNX"
                )


def _signature(recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recorded signature, if it is a matrix of numbers in and one column out."""
    try:
        inputs, outputs = (json.loads(recorded[side]) for side in ("inputs", "outputs"))
        features = _features(inputs)
        column = outputs[0]
        kind = column["tensor-spec"]["dtype"] if column["type"] == "tensor" else column["type"]
        if len(outputs) != 1 or features is None:
            return None
        label = _LABELS.get(kind)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError):
        return None
    output = {"name": "label", "datatype": label, "shape": [-1]}
    return {
        "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, features]}],
        "outputs": [output if label else {"name": "value", "datatype": "FP64", "shape": [-1, -1]}],
    }


def _features(inputs: list[Mapping[str, Any]]) -> int | None:
    """How many numbers a row has, None if rows are something else."""
    if inputs[0]["type"] == "tensor":
        shape, kind = inputs[0]["tensor-spec"]["shape"], inputs[0]["tensor-spec"]["dtype"]
        matrix = len(inputs) == 1 and kind in _NUMBERS and len(shape) == 2 and shape[0] == -1
        return int(shape[1]) if matrix else None
    return len(inputs) if all(column["type"] in _NUMBERS for column in inputs) else None
