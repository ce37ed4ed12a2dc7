"""KServe's model server, without gRPC."""

import logging
import os
from functools import cached_property

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Bench(Model):
    """The model of the benchmark."""

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """Made by each process when it is first asked: what goes to workers is pickled, and a session cannot be."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def load(self) -> bool:
        """Say that it is ready."""
        self.ready = True
        return True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """Answer one request."""
        [probabilities] = self.session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=False)
        return InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    for name in ("kserve.trace", "uvicorn.access"):  # a line for each request, which the other peers do not write
        logging.getLogger(name).disabled = True
    model = Bench("bench")
    model.load()
    workers = int(os.environ["WORKERS"])
    server = ModelServer(http_port=int(os.environ["PORT"]), workers=workers, enable_grpc=False, access_log_format=None)
    server.start([model])
