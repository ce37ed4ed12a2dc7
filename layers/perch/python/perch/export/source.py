"""What can be exported: files of every format that Perch reads, and models in memory.

    a file ─► its row of `perch.domain.formats` ─► inspected ─► loaded by Perch's own reader ─► Source
    an nn.Module, a fitted estimator ──────────────────────────────────────────────────────────► Source

A file that could run code when it is loaded (a pickle, TorchScript) is only opened with `trust`, and then it may do
whatever it likes with the user's account: to trust is to say that one knows who made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perch.artifacts import Inspected, inspect
from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.ranges import RANGES_KEY
from perch.artifacts.signature import Signature
from perch.domain.errors import Invalid, Refused
from perch.domain.formats import named

from .equivalence import Runnable
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that can be exported.

    Attributes:
        kind: what it is, in a phrase.
        signature: its inputs; of its outputs, what is known before it is converted.
        convert: from a sample and the file's metadata to ONNX bytes.
        ask: the model itself as one side of a comparison, given the names of the ONNX file's outputs.
        metadata: what its author said of it, to go into the ONNX file.
        make: how rows are made up that tell more about it than normal numbers do: from how many, and a seed.
    """

    kind: str
    signature: Signature
    convert: Callable[[Sample, Mapping[str, str]], bytes]
    ask: Callable[[Sequence[str]], Runnable]
    metadata: Mapping[str, str] = field(default_factory=dict)
    make: Callable[[int, int], Sample] | None = None


def open_source(model: Any, *, trust: bool = False) -> Source:
    """Make a source of a path or of a model in memory.

    Raises:
        Invalid: it is no file.
        Refused: it is of no kind that can be exported, or could run code and is not trusted.
    """
    if isinstance(model, str | Path):
        return _file(Path(model), trust=trust)
    module = type(model).__module__
    if any(kind.__module__.startswith("torch.nn") for kind in type(model).__mro__):
        return named("perch.export.torch_source:module_source")(model)  # type: ignore[no-any-return]  # named gives Any
    if hasattr(model, "get_params") and hasattr(model, "fit"):
        return _estimator(model, size=None)
    raise Refused(f"a {module}.{type(model).__name__} is neither a file, nor a torch module, nor an estimator")


def _file(path: Path, *, trust: bool) -> Source:
    data, inspected = read_file(path, trust=trust)
    opener = OPENERS.get(inspected.format)
    if opener is None:
        raise Refused(f"{inspected.format} files cannot be exported to ONNX; can be: {', '.join(OPENERS)}")
    return opener(data, inspected)


def read_file(path: Path, *, trust: bool) -> tuple[bytes, Inspected]:
    """Read and inspect a file.

    Raises:
        Invalid: it is no file.
        Refused: Perch does not know it, or it could run code and is not trusted.
    """
    if not path.is_file():
        raise Invalid(f"{path} is {'a folder' if path.is_dir() else 'not there'}; name the model's file")
    data = path.read_bytes()
    inspected = inspect(path.name, data)
    if inspected.code and not trust:
        raise Refused(
            f"{path.name} is not opened: {inspected.code}. If you made it, or know who did, say --trust; "
            "whatever is in it then runs as you"
        )
    return data, inspected


def said(inspected: Inspected) -> dict[str, str]:
    """What the author of an artifact said of its numbers, as metadata."""
    meaning = inspected.details.get("output")
    return ({OUTPUT_KEY: str(meaning)} if meaning else {}) | _declared(inspected.signature)


def _declared(signature: Signature) -> dict[str, str]:
    import json  # noqa: PLC0415 - kept beside its one use

    ranges = signature.ranges
    return {RANGES_KEY: json.dumps(ranges.to_json(), separators=(",", ":"))} if ranges else {}


def _onnx(data: bytes, inspected: Inspected) -> Source:
    """An ONNX file, to be quantised or cleaned."""
    from .onnx_file import finished  # noqa: PLC0415 - onnx is not needed for the rest
    from .served import serve_onnx  # noqa: PLC0415 - nor is onnxruntime

    def convert(_: Sample, metadata: Mapping[str, str]) -> bytes:
        import onnx  # noqa: PLC0415 - as above

        return finished(onnx.load_model_from_string(data), metadata)

    return Source(
        kind="an ONNX file",
        signature=inspected.signature,
        convert=convert,
        ask=lambda _: serve_onnx(data),
        metadata=said(inspected),
    )


def _estimator(estimator: Any, *, size: int | None, made: Any = None) -> Source:
    """An estimator; `made` is the description in the file that it was built from, if it was built so."""
    from perch.artifacts.sklearn_columns import columns_of  # noqa: PLC0415 - for those who need it

    from . import sklearn_onnx  # noqa: PLC0415 - a second, likewise

    known = made or sklearn_onnx.described(estimator)
    signature = sklearn_onnx.inputs_of(known)
    columns = columns_of(known) if made else None  # in memory it has its names, and gets a data frame
    estimator = sklearn_onnx.without_gaps(estimator)
    return Source(
        kind=f"scikit-learn's {type(estimator).__name__}",
        signature=signature,
        convert=lambda _, said: sklearn_onnx.estimator_to_onnx(estimator, metadata=said, signature=signature),
        ask=lambda outputs: sklearn_onnx.Estimator(estimator, outputs, size, columns),
        metadata=_declared(signature),
    )


def _torch(data: bytes, inspected: Inspected) -> Source:
    found: Source = named("perch.export.torch_source:file_source")(data, inspected)
    return found


def _script(data: bytes, inspected: Inspected) -> Source:
    found: Source = named("perch.export.torch_source:script_source")(data, inspected)
    return found


def _trees(data: bytes, inspected: Inspected) -> Source:
    found: Source = named("perch.export.trees_source:file_source")(data, inspected)
    return found


def _skops(data: bytes, _: Inspected) -> Source:
    from perch.artifacts.skops_file import read_skops  # noqa: PLC0415 - as above
    from perch.predictor.runtimes.sklearn import make  # noqa: PLC0415 - as above

    made = read_skops(data)
    return _estimator(make(made), size=len(data), made=made)


def _joblib(data: bytes, _: Inspected) -> Source:
    from perch.predictor.runtimes.joblib import load_joblib  # noqa: PLC0415 - as above

    return _estimator(load_joblib(data).estimator, size=len(data))


OPENERS: Mapping[str, Callable[[bytes, Inspected], Source]] = {
    "onnx": _onnx,
    "safetensors": _torch,
    "state_dict": _torch,
    "pt2": _torch,
    "torchscript": _script,
    "xgboost": _trees,
    "lightgbm": _trees,
    "skops": _skops,
    "joblib": _joblib,
}
"""Format → how its files are opened."""
