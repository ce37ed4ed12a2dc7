"""Handlers that people write, to compare the predictor's with: the same model, asked by the same events.

    plain, plain_protocol   the json module or orjson, and nothing else: no checks, no metrics, no log line
    powertools              Powertools' resolver with pydantic's validation, and EMF metrics
    fastapi                 FastAPI with pydantic's validation, behind Mangum

Each framework is used as its own documentation begins. Their packages are in `benchmarks/requirements.txt`, and no
dependencies of the project.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
PREDICT, INFER = "/models/digits/predict", "/v2/models/digits/infer"


def plain(session: Any, loads: Callable[[str], Any], dumps: Callable[[Any], Any]) -> Handler:
    """Rows of features in, predictions and probabilities out."""

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        rows = np.array(loads(event["body"])["features"], dtype=np.float32)
        labels, probabilities = session.run(None, {"X": rows})
        body = {
            "predictions": labels.tolist(),
            "probabilities": probabilities.tolist(),
            "request_id": context.aws_request_id,
        }
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": _text(dumps(body))}

    return handler


def plain_protocol(session: Any, loads: Callable[[str], Any], dumps: Callable[[Any], Any]) -> Handler:
    """The Open Inference Protocol as far as this one request needs it."""

    def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
        [given] = loads(event["body"])["inputs"]
        rows = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
        [scores] = session.run(None, {given["name"]: rows})
        output = {"name": "scores", "datatype": "FP32", "shape": scores.shape, "data": scores.ravel().tolist()}
        body = {"model_name": "digits", "model_version": "v2", "outputs": [output]}
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": _text(dumps(body))}

    return handler


def powertools(session: Any) -> Handler:
    """Powertools: an HTTP API resolver that validates, and two metrics a request."""
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Perch")
    os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "digits")
    from aws_lambda_powertools import Metrics
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
    from aws_lambda_powertools.metrics import MetricUnit
    from pydantic import BaseModel

    class Rows(BaseModel):
        features: list[list[float]]

    class Predictions(BaseModel):
        predictions: list[float]
        probabilities: list[list[float]]

    app, metrics = APIGatewayHttpResolver(enable_validation=True), Metrics()

    def predict(body: Rows) -> Predictions:
        labels, probabilities = _run(session, np.array(body.features, dtype=np.float32))
        metrics.add_metric(name="Requests", unit=MetricUnit.Count, value=1)
        metrics.add_metric(name="Latency", unit=MetricUnit.Milliseconds, value=1)
        return Predictions(predictions=labels, probabilities=probabilities)

    # The resolver reads annotations, which are names of this function only.
    predict.__annotations__ = {"body": Rows, "return": Predictions}
    app.post(PREDICT)(predict)

    @metrics.log_metrics
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        answer: dict[str, Any] = app.resolve(event, context)
        return answer

    return handler


def fastapi(session: Any) -> Handler:
    """FastAPI behind Mangum."""
    from fastapi import FastAPI
    from mangum import Mangum
    from pydantic import BaseModel

    class Rows(BaseModel):
        features: list[list[float]]

    class Predictions(BaseModel):
        predictions: list[float]
        probabilities: list[list[float]]

    app = FastAPI()

    async def predict(body: Rows) -> Predictions:
        labels, probabilities = _run(session, np.array(body.features, dtype=np.float32))
        return Predictions(predictions=labels, probabilities=probabilities)

    predict.__annotations__ = {"body": Rows, "return": Predictions}
    app.post(PREDICT)(predict)
    handler: Handler = Mangum(app, lifespan="off")
    return handler


def _run(session: Any, rows: Any) -> tuple[list[Any], list[Any]]:
    """Predictions and probabilities, whether the model gives labels and scores or scores alone."""
    outputs = session.run(None, {"X": rows})
    labels = outputs[0] if len(outputs) == 2 else outputs[0].argmax(axis=1)
    return labels.tolist(), outputs[-1].tolist()


def _text(dumped: str | bytes) -> str:
    return dumped.decode() if isinstance(dumped, bytes) else dumped
