"""KServe's model server, without gRPC."""

import logging
import os

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Bench(Model):
    """The model of the benchmark."""

    def load(self) -> bool:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self.ready = True
        return True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """Answer one request."""
        [probabilities] = self._session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=False)
        return InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    for name in ("kserve.trace", "uvicorn.access"):  # a line for each request, which the other peers do not write
        logging.getLogger(name).disabled = True
    model = Bench("bench")
    model.load()
    ModelServer(http_port=int(os.environ["PORT"]), workers=1, enable_grpc=False, access_log_format=None).start([model])
