"""`mlserver infer`, Seldon's command for batches, and MLServer's own types. Run by `make test-clients`."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("mlserver", reason="in an environment of its own: make test-clients")

import numpy as np
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, StringCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexResponse,
)

URL = os.environ.get("PERCH_URL", "http://localhost")


@pytest.mark.parametrize("options", [[], ["--binary-data"], ["--batch-size", "3"], ["--batch-size", "3", "-b"]])
def test_a_file_of_requests_is_answered_line_by_line(tmp_path, options):
    """In JSON and in bytes, one by one and put together into batches, which the command takes apart again."""
    rows = [[float(i), 2.0, 3.0, 0.0] for i in range(7)]
    asked = [{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    command = ["mlserver", "infer", "-u", urlsplit(URL).netloc, "-m", "rows", "-i", "in.jsonl", "-o", "out.jsonl"]
    done = subprocess.run([*command, "-w", "2", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(answers) == len(rows)
    assert {answer["parameters"]["batch_index"] for answer in answers} == set(range(7))
    for answer in answers:
        [output] = answer["outputs"]
        assert (output["name"], output["shape"]) == ("probabilities", [1, 3])
        assert int(np.argmax(output["data"])) == 1


def test_what_the_server_says_fits_mlservers_types():
    """Every body is read by the models that MLServer's own server writes with."""
    metadata = MetadataModelResponse.model_validate(call("/v2/models/mirror"))
    assert {tensor.name: tensor.datatype for tensor in metadata.inputs}["BYTES"] == "BYTES"
    MetadataServerResponse.model_validate(call("/v2"))
    index = RepositoryIndexResponse.model_validate(call("/v2/repository/index", b""))
    assert [item.name for item in index.root] == ["rows", "mirror", "nothing"]


def test_requests_of_its_codecs_are_answered_and_decoded():
    """An array through the codec of requests; texts through that of strings come back as they went."""
    rows = np.array([[1, 2, 3, 0]], dtype=np.float32)
    asked = NumpyRequestCodec.encode_request(rows)
    asked.inputs[0].name = "x"
    answer = infer("rows", asked)
    assert NumpyCodec.decode_output(answer.outputs[0]).argmax() == 1
    mirrored = call("/v2/models/mirror")["inputs"]
    others = [
        {"name": one["name"], "datatype": one["datatype"], "shape": [1, 2], "data": [1, 0]}
        for one in mirrored
        if one["datatype"] != "BYTES"
    ]
    texts = StringCodec.encode_input("BYTES", ["Zürich", ""], use_bytes=False)
    texts.shape = [1, 2]
    answer = infer("mirror", InferenceRequest.model_validate({"inputs": [*others, texts.model_dump()]}))
    [back] = [output for output in answer.outputs if output.name == "BYTES_back"]
    assert StringCodec.decode_output(back) == ["Zürich", ""]


def infer(model, asked):
    """Send a request as MLServer's types write it, and read the answer with them."""
    body = asked.model_dump_json(exclude_none=True).encode()
    return InferenceResponse.model_validate(call(f"/v2/models/{model}/infer", body))


def call(path: str, body: bytes | None = None) -> Any:
    """Send an HTTP request, a POST if it has a body; any other answer than a 200 raises."""
    asked = Request(URL + path, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - our own URL
    with urlopen(asked, timeout=120) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())
