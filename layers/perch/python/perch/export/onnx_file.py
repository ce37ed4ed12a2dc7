"""What every ONNX file that is written here has in common: what Perch reads in it, and nothing about its maker.

Exporters note the source line of every node, which is dead weight for a server and tells where the author's files
lie. They go; the name of the exporter and its version stay. What the author said of the model's numbers
(`perch.output`, `perch.ranges`) goes in. The same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perch.artifacts.onnx_graphs import graphs_of
from perch.domain.errors import Refused

LARGEST = 2_000_000_000
"""Bytes: a protobuf message holds two gigabytes, and ONNX keeps larger weights in files beside it, which is refused."""


def finished(model: Any, metadata: Mapping[str, str]) -> bytes:
    """Return a `ModelProto` as bytes, with this metadata and no traces of its making.

    Raises:
        Refused: it is too large for one file.
    """
    for graph in graphs_of(model):
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        for part in _parts(graph):
            part.doc_string = ""
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]
    model.doc_string = ""
    kept = {entry.key: entry.value for entry in model.metadata_props} | dict(metadata)
    del model.metadata_props[:]
    for key, value in sorted(kept.items()):
        model.metadata_props.add(key=key, value=value)
    if model.ByteSize() > LARGEST:
        raise Refused(f"the ONNX file would have {model.ByteSize():,} bytes; one file holds at most {LARGEST:,}")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _parts(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for name in ("input", "output", "initializer"):
        # Of a function, input and output are plain names.
        yield from (part for part in getattr(graph, name, ()) if not isinstance(part, str))
