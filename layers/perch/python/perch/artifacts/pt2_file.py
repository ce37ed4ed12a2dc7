"""Inspect a `.pt2` archive of torch.export in plain Python, and read of it all that the predictor needs.

    zip archive (strict) ─► only known members ─► models/model.json ─► graph (`pt2_graph`)
                        └─► tables of weights and constants ─► places in the file     } ─► Program
                        └─► extra/<key>: the author's own texts (perch.output, perch.ranges)

torch's own loader unpickles what an archive tells it to, evaluates its expressions and loads its libraries. Here every
member is one of a short list, weights are raw bytes with a type and a shape, and all the rest of the program is numbers
and names. Whatever could run code (pickled or legacy weights, opaque and custom objects, compiled libraries) is refused
by name, whether or not anything would read it. The sample inputs that every export brings along are a pickle that
nobody here needs; they are read by `torch_pickle`, so that it is sure to hold tensors and nothing else.

Programs that pass are proved harmless for our loader, `perch.predictor.runtimes.pt2`, which builds the model from the
very `Program` that is read here; `torch.export.load` is never called. How much time and memory a run takes is bounded
by the function's limits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .outputs import declared_output
from .pt2_arguments import a_list, a_name, an_object, tensor_name
from .pt2_graph import Graph, read_graph
from .pt2_signature import check_expressions, output_names, read_meta, read_signature, read_sizes, whole
from .ranges import read_ranges
from .signature import Signature
from .stored_tensor import StoredTensor, stored_tensor
from .torch_pickle import read_pickle
from .zip_archive import Archive, read_archive

MAX_JSON = 32 * 1024 * 1024
MAX_TEXT = 1024 * 1024
SCHEMA = 8
"""The major version of torch.export's schema that is read (torch 2.6 to 2.13 and on)."""

_MEMBERS = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment|version"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/[\w.-]+"
)
_NOT_SERVED = (
    (r"data/aotinductor/", "holds a compiled library, which is code; save the program with torch.export.save"),
    (r"data/(weights|constants)/[^/]*\.pt$", "is a pickle of weights, which can run code; save it with torch ≥ 2.9"),
    (r"data/constants/(custom|opaque)_obj", "holds an object as a pickle, which can run code; only tensors are served"),
    (r"models/", "is a second program or has another name; save one with torch.export.save"),
)  # fmt: skip
_GUARD = re.compile(
    r"(?:L(?:\['\w++'\]|\[\d++\])++\.(?:size|stride|storage_offset|dim)\(\)(?:\[\d++\])?"
    r"|\d++|//|[=!<>]=|[-+*%()<> ]|and|or|not)++"
)
"""Comparisons of sizes, as an export writes them. They are not needed here, and torch would run them as code."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """All that is needed to run a `.pt2`: its graph, where the tensors are, and what it takes and gives.

    Attributes:
        tensors: the graph's inputs that the file brings, by their names in the graph.
        inputs: names in the graph of what a request brings, in the signature's order.
        axes: of each input of the signature, the names of its variable dimensions.
        sizes: what the export promises to be right for: least and most of each such name, None where it has no end.
    """

    graph: Graph
    tensors: Mapping[str, StoredTensor]
    inputs: tuple[str, ...]
    signature: Signature
    axes: Mapping[str, tuple[str | None, ...]]
    sizes: Mapping[str, tuple[int, int | None]]
    metadata: Mapping[str, str]
    torch: str


def inspect_pt2(data: Data) -> Inspected:
    """Read what a `.pt2` archive is, and compare all of it with its check sums. Raises `ArtifactRefused`."""
    archive = read_archive(data)
    program = read_program(data, archive)
    archive.check()
    _check_sample_inputs(archive)
    return Inspected(
        format="pt2",
        runtimes=("torch",),
        signature=program.signature,
        details={
            "torch": program.torch,
            "steps": len(program.graph.steps),
            "operators": sorted({step.operator for step in program.graph.steps}),
            "parameters": sum(math.prod(tensor.shape) for tensor in program.tensors.values()),
            "output": declared_output(program.metadata),
        },
    )


def read_program(data: Data, archive: Archive | None = None) -> Program:
    """Read the program of an archive, all of it checked. Raises `ArtifactRefused`."""
    found = _Reader(archive or read_archive(data))
    return found.program()


class _Reader:
    """An archive of known members, all under one folder."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._folder = next(iter(archive.members), "").split("/")[0] + "/"
        self._names = [name.removeprefix(self._folder) for name in archive.members]
        for name, full in zip(self._names, archive.members, strict=True):
            if not full.startswith(self._folder) or not _MEMBERS.fullmatch(name):
                reason = next((words for pattern, words in _NOT_SERVED if re.match(pattern, name)), None)
                raise ArtifactRefused(
                    f"the archive's member {full!r} {reason or 'is not one that torch.export.save writes'}"
                )
        if self._text("archive_format", 16) != "pt2" or self._text("archive_version", 16) != "0":
            raise ArtifactRefused(
                "the archive is not a .pt2 of version 0; save it with torch.export.save of torch ≥ 2.9"
            )
        if "byteorder" in self._names and self._text("byteorder", 16) != "little":
            raise ArtifactRefused("the archive's numbers are big-endian; save it on a little-endian machine")

    def program(self) -> Program:
        """The program, from all members that say something about it."""
        document = an_object(self._json("models/model.json"), "program")
        self._check_versions(document)
        module = an_object(document.get("graph_module"), "graph module")
        check_expressions(document)
        raw = an_object(module.get("graph"), "graph")
        graph = read_graph(raw)
        tables = {
            "weights": self._table("data/weights/", "model_weights_config.json", r"weight_\d+"),
            "constants": self._table("data/constants/", "model_constants_config.json", r"tensor_\d+"),
        }
        specs = an_object(module.get("signature"), "signature")
        tensors, inputs = _bound(a_list(specs.get("input_specs"), "inputs", most=20_000), graph, tables)
        self._refuse_strays(tables)
        _check_outputs(a_list(specs.get("output_specs"), "outputs"), graph)
        metas = an_object(raw.get("tensor_values"), "table of tensors")
        signature, axes = read_signature(metas, inputs, graph.outputs, output_names(module, len(graph.outputs)))
        texts = [name for name in self._names if name.startswith("extra/")]
        metadata = {name.removeprefix("extra/"): self._text(name, MAX_TEXT) for name in texts}
        return Program(
            graph=graph,
            tensors=tensors,
            inputs=inputs,
            signature=replace(signature, ranges=read_ranges(metadata, signature)),
            axes=axes,
            sizes=read_sizes(an_object(document.get("range_constraints"), "table of ranges")),
            metadata=metadata,
            torch=str(document.get("torch_version"))[:40],
        )

    def _check_versions(self, document: Mapping[str, Any]) -> None:
        schema = document.get("schema_version")
        if not isinstance(schema, dict) or schema.get("major") != SCHEMA:
            raise ArtifactRefused(
                f"the program's schema is {str(schema)[:60]}; {SCHEMA} is read: save it with torch ≥ 2.9"
            )
        others = an_object(document.get("opset_version"), "table of operator sets").keys() - {"aten"}
        if others:
            raise ArtifactRefused(f"the program needs the operators of {min(others)[:60]!r}; those of aten are served")
        for guard in a_list(document.get("guards_code", []), "guards"):
            if not isinstance(guard, str) or not _GUARD.fullmatch(guard[:2_000]) or len(guard) > 2_000:
                raise ArtifactRefused(
                    f"a guard of the program is not a comparison of sizes: {str(guard)[:80]!r}; torch would run it"
                )

    def _table(self, folder: str, config: str, pattern: str) -> dict[str, tuple[str, StoredTensor]]:
        """Tensors by their names in the module: the member that holds each, and its place in the file."""
        found = {}
        table = an_object(self._json(folder + config), "table of tensors")
        for name, entry in an_object(table.get("config"), "table of tensors").items():
            entry = an_object(entry, "tensor")  # noqa: PLW2901 - the same, checked
            path, meta = entry.get("path_name"), an_object(entry.get("tensor_meta") or {}, "tensor")
            if entry.get("use_pickle") is not False or not isinstance(path, str) or not re.fullmatch(pattern, path):
                raise ArtifactRefused(
                    f"tensor {name[:80]!r} is kept as a pickle, which can run code; only plain tensors are served"
                )
            dtype, shape = read_meta(meta, name)
            member = self._archive.members.get(self._folder + folder + path)
            if member is None:
                raise ArtifactRefused(f"tensor {name[:80]!r} is in {folder}{path}, which is not in the archive")
            if member.compressed:
                raise ArtifactRefused(f"{member.name} is compressed; save the program with torch.export.save")
            found[name] = (
                path,
                stored_tensor(
                    name,
                    dtype=dtype,
                    shape=shape,
                    strides=[whole(size) for size in a_list(meta.get("strides"), "strides")],
                    offset=whole(meta.get("storage_offset")),
                    start=member.start,
                    length=member.size,
                ),
            )
        return found

    def _refuse_strays(self, tables: Mapping[str, Mapping[str, tuple[str, StoredTensor]]]) -> None:
        for folder, table in tables.items():
            used = {path for path, _ in table.values()} | {f"model_{folder}_config.json"}
            for name in self._names:
                if name.startswith(f"data/{folder}/") and name.removeprefix(f"data/{folder}/") not in used:
                    raise ArtifactRefused(f"the archive's member {name!r} belongs to no tensor")

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._text(name, MAX_JSON))
        except RecursionError as error:
            raise ArtifactRefused(f"{name} is not readable JSON: it is nested too deeply") from error
        except ValueError as error:
            raise ArtifactRefused(f"{name} is not readable JSON: {str(error)[:120]}") from error

    def _text(self, name: str, limit: int) -> str:
        if name not in self._names:
            raise ArtifactRefused(f"the archive has no {name}: it is no .pt2 that torch.export.save has written")
        try:
            return self._archive.read(self._folder + name, limit).decode()
        except UnicodeDecodeError as error:
            raise ArtifactRefused(f"{name} is not UTF-8") from error


def _check_sample_inputs(archive: Archive) -> None:
    """Every export brings along an example of its inputs, pickled. It is not needed, and has to be harmless anyhow."""
    name = next((name for name in archive.members if name.endswith("/data/sample_inputs/model.pt")), None)
    if name is None or not archive.members[name].size:
        return
    inner = read_archive(archive.view(name))
    pickles = [member for member in inner.members if member.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].endswith("/data.pkl"):
        raise ArtifactRefused("the sample inputs are not what torch.save writes")
    read_pickle(inner.read(pickles[0], MAX_JSON), "the sample inputs' pickle")


def _bound(
    specs: list[Any], graph: Graph, tables: Mapping[str, Mapping[str, tuple[str, StoredTensor]]]
) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """What each input of the graph is: a tensor of the file, or one that a request brings."""
    tensors: dict[str, StoredTensor] = {}
    inputs: list[str] = []
    if len(specs) != len(graph.inputs):
        raise ArtifactRefused("the program's signature and its graph have another number of inputs")
    for spec, expected in zip(specs, graph.inputs, strict=True):
        kind, inner = next(iter(an_object(spec, "input").items()), ("", None))
        inner = an_object(inner, "input")
        if kind == "user_input":
            name = tensor_name(inner.get("arg"), "input")
            inputs.append(name)
        elif kind in _KEPT:
            name = a_name(an_object(inner.get("arg"), "input").get("name"), "input")
            key = a_name(inner.get(_KEPT[kind]), "tensor")
            found = tables["weights"].get(key) or tables["constants"].get(key)
            if found is None:
                raise ArtifactRefused(f"the program needs tensor {key[:80]!r}, which is not in the archive")
            tensors[name] = found[1]
        else:
            raise ArtifactRefused(f"the program takes a {kind[:40]!r}, which is no tensor; only tensors are served")
        if name != expected:
            raise ArtifactRefused(f"the program's signature and its graph disagree about input {expected[:80]!r}")
    return tensors, tuple(inputs)


_KEPT = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


def _check_outputs(specs: list[Any], graph: Graph) -> None:
    given = []
    for spec in specs:
        kind, inner = next(iter(an_object(spec, "output").items()), ("", None))
        if kind != "user_output":
            raise ArtifactRefused(
                f"the program has a {kind[:40]!r} beside its answers: it changes its own state; "
                "call module.eval() before torch.export.export"
            )
        given.append(tensor_name(an_object(inner, "output").get("arg"), "output"))
    if tuple(given) != graph.outputs:
        raise ArtifactRefused("the program's signature and its graph disagree about the outputs")
