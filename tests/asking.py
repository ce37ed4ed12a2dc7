"""A predictor asked once in a process of its own: as text, because that may have nothing but layers to import."""

from __future__ import annotations

ASK = '''
import hashlib, json
from types import SimpleNamespace
import handler  # without a model: a placeholder
from perch.domain.pointer import Pointer
from perch.predictor.handler import make_handler

def ask(runtime, fmt, path, row):
    """Load the model at a path and return the answer to one row of features."""
    data = open(path, "rb").read()
    pointer = Pointer(model="m", version="v", key="k", version_id="i", size=len(data), format=fmt,
                      sha256=hashlib.sha256(data).hexdigest())
    environ = {"PERCH_ENDPOINT": "m", "PERCH_STORE": "store", "PERCH_POINTER": pointer.to_json()}
    answer = make_handler(runtime=runtime, environ=environ, fetch=lambda *_: data)
    event = {
        "version": "2.0", "rawPath": "/models/m/predict", "isBase64Encoded": False,
        "body": json.dumps({"features": [row]}), "headers": {"content-type": "application/json"},
        "requestContext": {
            "http": {"method": "POST", "path": "/models/m/predict"}, "stage": "$default", "timeEpoch": 1,
        },
    }
    return answer(event, SimpleNamespace(aws_request_id="r", function_version="1"))
'''
