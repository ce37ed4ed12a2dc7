"""Predict with ONNX models. The model is loaded here, at import, which is Lambda's init phase."""

from perch.predictor.startup import start

handler = start(runtime="onnx")
