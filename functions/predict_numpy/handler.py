"""Predict with small networks in NumPy (safetensors). The model is loaded here, at import: Lambda's init phase."""

from perch.predictor.startup import start

handler = start(runtime="numpy")
