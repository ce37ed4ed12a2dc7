"""Triton through pytriton: the same session in its Python backend, with its dynamic batcher; an instance a worker."""

import os

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)


@batch
def infer(x):
    """Answer a batch."""
    return session.run(None, {"x": x})


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    ports = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1000, allow_metrics=False)
    with Triton(config=ports) as triton:
        triton.bind(
            model_name="bench",
            infer_func=[infer] * int(os.environ["WORKERS"]),
            inputs=[Tensor(name="x", dtype=np.float32, shape=(64,))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()
