"""KServe's own REST client. Run by `make test-clients`."""

from __future__ import annotations

import asyncio
import os

import pytest

pytest.importorskip("kserve", reason="in an environment of its own: make test-clients")

import numpy as np
from httpx import HTTPStatusError
from kserve import InferInput, InferRequest, InferResponse
from kserve.inference_client import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = os.environ.get("PERCH_URL", "http://localhost")
ROWS = np.array([[1, 2, 3, 0], [4, 5, 6, 0]], dtype=np.float32)


def ask(does):
    """Run one use of a client."""

    async def run():
        return await does(InferenceRESTClient(RESTConfig(protocol="v2", timeout=120)))

    return asyncio.run(run())


def request(*, binary_in, binary_out, model="rows"):
    """Two rows, and what is wanted of them."""
    rows = InferInput("x", [2, 4], "FP32")
    rows.set_data_from_numpy(ROWS, binary_data=binary_in)
    wanted = RequestedOutput("probabilities", parameters={"binary_data": binary_out})
    return InferRequest(model_name=model, infer_inputs=[rows], request_outputs=[wanted], request_id="r-1")


def test_the_server_and_its_models_are_live_and_ready():
    """This client reads the bodies, not only the status."""
    assert ask(lambda client: client.is_server_live(URL))
    assert ask(lambda client: client.is_server_ready(URL))
    assert ask(lambda client: client.is_model_ready(URL, "rows"))
    assert not ask(lambda client: client.is_model_ready(URL, "nothing"))


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_rows_are_predicted_in_json_and_in_bytes(binary_in, binary_out):
    """With the id that was sent."""
    asked = request(binary_in=binary_in, binary_out=binary_out)
    answer = ask(lambda client: client.infer(URL, asked, model_name="rows"))
    assert isinstance(answer, InferResponse)
    assert (answer.model_name, answer.id) == ("rows", "r-1")
    [output] = answer.outputs
    assert output.shape == [2, 3]
    assert list(np.asarray(output.as_numpy()).argmax(axis=1)) == [1, 1]


def test_a_mistake_is_an_error_in_words():
    """Of a model that has no such input, and of one that there is not yet."""
    asked = request(binary_in=False, binary_out=False, model="mirror")
    with pytest.raises(HTTPStatusError, match="there is no input 'x'"):
        ask(lambda client: client.infer(URL, asked, model_name="mirror"))
    with pytest.raises(HTTPStatusError, match="no model has been deployed"):
        ask(lambda client: client.infer(URL, asked, model_name="nothing"))
