"""Predict with scikit-learn models (skops, joblib). The model is loaded here, at import: Lambda's init phase."""

from perch.predictor.handler import make_handler

handler = make_handler(runtime="sklearn")
