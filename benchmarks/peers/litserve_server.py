"""LitServe, with the protocol's JSON read and written by hand, because it has none of its own."""

import os

import litserve
import numpy as np
import onnxruntime


class Bench(litserve.LitAPI):
    """The model of the benchmark."""

    def setup(self, device):
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def decode_request(self, request):
        """Read the tensor."""
        [given] = request["inputs"]
        return np.array(given["data"], dtype=np.float32).reshape(given["shape"])

    def predict(self, x):
        """Run the model."""
        return self._session.run(None, {"x": x})[0]

    def encode_response(self, output):
        """Write the answer."""
        tensor = {"name": "probabilities", "datatype": "FP32", "shape": list(output.shape)}
        return {"model_name": "bench", "outputs": [{**tensor, "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    api = Bench(api_path="/v2/models/bench/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
