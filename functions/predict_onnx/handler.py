"""Predict with ONNX models. The model is loaded here, at import, which is Lambda's init phase."""

from perch.predictor.handler import make_handler

handler = make_handler(runtime="onnx")
