"""Predict with scikit-learn models (skops, joblib). The model is loaded here, at import: Lambda's init phase."""

from perch.predictor.startup import start

handler = start(runtime="sklearn")
