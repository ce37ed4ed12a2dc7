"""BentoML, with the protocol's JSON read and written by hand, because it has none of its own."""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=int(os.environ["WORKERS"]), logging={"access": {"enabled": False}})
class Bench:
    """The model of the benchmark."""

    def __init__(self) -> None:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api(route="/v2/models/bench/infer")
    def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer one request."""
        [given] = inputs
        rows = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
        [output] = self._session.run(None, {"x": rows})
        tensor = {"name": "probabilities", "datatype": "FP32", "shape": list(output.shape)}
        return {"model_name": "bench", "outputs": [{**tensor, "data": output.ravel().tolist()}]}
