"""tritonclient (sync and asyncio), as NVIDIA ships it. Run by `make test-clients`."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import pytest

pytest.importorskip("tritonclient", reason="in an environment of its own: make test-clients")

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

ADDRESS = urlsplit(os.environ.get("PERCH_URL", "http://localhost")).netloc
ROWS = np.array([[1, 2, 3, 0], [4, 5, 6, 0]], dtype=np.float32)
VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    **{
        f"{word}{bits}": np.array([[0, np.iinfo(kind).max], [1, np.iinfo(kind).min]], dtype=kind)
        for word, letter in (("UINT", "u"), ("INT", "i"))
        for bits in (8, 16, 32, 64)
        for kind in [np.dtype(f"{letter}{bits // 8}")]
    },
    "FP16": np.array([[0.5, -2], [65504, 0]], dtype=np.float16),
    "FP32": np.array([[0.1, -2], [3e38, 0]], dtype=np.float32),
    "FP64": np.array([[0.1, -2], [1e308, 0]], dtype=np.float64),
    "BYTES": np.array([["", "Zürich"], ['a\n"b"', "x" * 300]], dtype=np.object_),
}


@pytest.fixture
def client():
    """A client; it keeps connections of its own."""
    with triton.InferenceServerClient(ADDRESS) as made:
        yield made


def given(name, array, *, binary, module=triton):
    """An input of this name."""
    made = module.InferInput(name, list(array.shape), "FP32" if name == "x" else name)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def same(got, sent):
    """Whether an output is what was sent; texts come as bytes."""
    if sent.dtype == np.object_:
        return [x if isinstance(x, str) else x.decode() for x in got.ravel()] == list(sent.ravel())
    return got.dtype == sent.dtype and np.array_equal(got, sent)


def test_the_server_is_live_and_ready_and_says_what_it_can(client):
    """With the extension that this client uses by itself."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]


def test_models_tell_whether_they_are_ready(client):
    """One that serves, by its version too, and one that has no model yet."""
    assert client.is_model_ready("rows")
    assert client.is_model_ready("rows", "v1")
    assert not client.is_model_ready("rows", "v2")
    assert not client.is_model_ready("nothing")


def test_metadata_is_the_models_signature(client):
    """Names, datatypes and shapes, of one input and of many."""
    rows = client.get_model_metadata("rows")
    assert (rows["name"], rows["versions"], rows["platform"]) == ("rows", ["v1"], "onnx_onnxv1")
    assert rows["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert {one["name"]: one["datatype"] for one in client.get_model_metadata("mirror")["inputs"]} == {
        name: name for name in VALUES
    }


def test_the_repository_index_names_the_endpoints(client):
    """Asked with an empty body."""
    assert [one["name"] for one in client.get_model_repository_index()] == ["rows", "mirror", "nothing"]


def test_models_cannot_be_loaded_over_the_api(client):
    """The client hears why."""
    with pytest.raises(InferenceServerException, match="uploads and rollouts"):
        client.load_model("rows")


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_rows_are_predicted_in_json_and_in_bytes(client, binary_in, binary_out, compression):
    """Plain and compressed, with the id that was sent."""
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    result = client.infer(
        "rows", [given("x", ROWS, binary=binary_in)], model_version="v1", outputs=wanted, request_id="r-1",
        request_compression_algorithm=compression,
    )  # fmt: skip
    answer = result.as_numpy("probabilities")
    assert (answer.shape, answer.dtype) == ((2, 3), np.float32)
    assert list(answer.argmax(axis=1)) == [1, 1]
    told = result.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("r-1", "rows", "v1")


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_datatype_comes_back_as_it_went(client, name, binary):
    """All inputs at once, the outputs in the same way; this client sends FP16 in bytes only."""
    inputs = [given(other, array, binary=binary or other == "FP16") for other, array in VALUES.items()]
    wanted = [triton.InferRequestedOutput(f"{name}_back", binary_data=binary)]
    result = client.infer("mirror", inputs, outputs=wanted)
    assert [one["name"] for one in result.get_response()["outputs"]] == [f"{name}_back"]
    assert same(result.as_numpy(f"{name}_back"), VALUES[name])


def test_without_a_wish_all_outputs_come(client):
    """In bytes, which this client asks for by itself."""
    result = client.infer("mirror", [given(name, array, binary=True) for name, array in VALUES.items()])
    for name, array in VALUES.items():
        assert same(result.as_numpy(f"{name}_back"), array)


def test_a_mistake_is_an_error_in_words(client):
    """Another name, another shape, another version."""
    with pytest.raises(InferenceServerException, match="there is no input 'FP64'"):
        client.infer("rows", [given("FP64", VALUES["FP64"], binary=True)])
    with pytest.raises(InferenceServerException, match=r"has shape \[2, 3\]; the model takes \[-1, 4\]"):
        client.infer("rows", [given("x", ROWS[:, :3].copy(), binary=True)])
    with pytest.raises(InferenceServerException, match="version 'v9' is not served"):
        client.infer("rows", [given("x", ROWS, binary=True)], model_version="v9")
    with pytest.raises(InferenceServerException, match="no model has been deployed"):
        client.infer("nothing", [given("x", ROWS, binary=True)])


@pytest.mark.parametrize("binary", [False, True])
def test_the_asyncio_client_predicts_too(binary):
    """Several requests at once."""

    async def ask():
        async with triton_aio.InferenceServerClient(ADDRESS) as client:
            assert await client.is_model_ready("rows")
            wanted = [triton_aio.InferRequestedOutput("probabilities", binary_data=binary)]
            inputs = [given("x", ROWS, binary=binary, module=triton_aio)]
            return await asyncio.gather(
                *(client.infer("rows", inputs, outputs=wanted, request_compression_algorithm=how)
                  for how in (None, "gzip", "deflate"))
            )  # fmt: skip

    for result in asyncio.run(ask()):
        assert list(result.as_numpy("probabilities").argmax(axis=1)) == [1, 1]
