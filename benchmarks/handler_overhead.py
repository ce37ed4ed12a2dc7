"""What the predictor's handler adds to a bare model call, beside handlers that people write.

    python -m benchmarks.handler_overhead

Two sizes of request: one row of 64 features, and 64 rows of 784. Timed in turns (`benchmarks.asking`): the bare
`session.run`; plain handlers with the json module or orjson, and no checks, metrics or log line; Powertools' resolver
with pydantic and EMF; FastAPI with pydantic behind Mangum (`benchmarks.written_handlers`); and our whole handler (event
in, answer out, log line written), asked in our own way, in the Open Inference Protocol with JSON and with bytes,
capturing every request, with declared ranges, from the cache, and refusing. Medians and 99th percentiles are printed
and saved to benchmarks/results/handler_overhead.json with machine, versions and command.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

import numpy as np
import orjson

from benchmarks.asking import Call, call, event, in_bytes, linear, perch, session, timed
from benchmarks.report import save
from benchmarks.written_handlers import INFER, fastapi, plain, plain_protocol, powertools
from examples.digits.train import held_out, train
from perch.artifacts.ranges import declare

ROUNDS, CALLS = 60, 200
REMEMBERING = '{"ttl_s": 3600, "size_mb": 16}'


def main() -> None:
    """Time, print, save."""
    load = os.getloadavg()
    found = {
        "1 row of 64": _results(_small(), CALLS),
        "64 rows of 784": _results(_large(), CALLS // 20),
    }
    for size, results in found.items():
        print(size)
        for name, row in results.items():
            median, p99, added, ratio = row.values()
            print(f"  {name:38} median {median:9.2f} µs  p99 {p99:9.2f}  added {added:9.2f}  ratio {ratio:.2f}")
    workload = (
        f"digits v2 (MLP 64-100-10), 1 row of 64 features, {ROUNDS} rounds of {CALLS} calls of each; "
        f"a 784-10 linear model, 64 rows of 784, {ROUNDS} rounds of {CALLS // 20}"
    )
    save(
        "handler_overhead",
        {"workload": workload, "results": found},
        packages=(
            *("onnxruntime", "numpy", "msgspec", "pybase64", "orjson"),
            *("aws-lambda-powertools", "pydantic", "fastapi", "mangum"),
        ),
        load=load,
    )


def _small() -> dict[str, Call]:
    """One row of 64 features; the bare call first."""
    data, row = train("onnx", "v2"), held_out().features[:1]
    bare, ours = session(data), perch(data)
    asked = event({"features": row.tolist()})
    v2 = {"name": "X", "shape": [1, 64], "datatype": "FP32"}
    ranges = declare(data, {"inputs": {"X": {"min": 0, "max": 16}}})
    return {
        "bare session.run": lambda: bare.run(None, {"X": row}),
        "plain handler, json module": call(plain(bare, json.loads, json.dumps), asked),
        "plain handler, orjson": call(plain(bare, orjson.loads, orjson.dumps), asked),
        "Powertools, pydantic, EMF": call(powertools(bare), asked),
        "FastAPI, pydantic, Mangum": call(fastapi(bare), asked),
        "perch": call(ours, asked),
        "perch, capturing every request": call(perch(data, PERCH_CAPTURE="1"), asked),
        "perch, with declared ranges": call(perch(ranges), asked),
        "perch, from the cache": call(perch(data, PERCH_CACHE=REMEMBERING), asked),
        "perch, protocol, JSON": call(ours, event({"inputs": [{**v2, "data": row.ravel().tolist()}]}, INFER)),
        "perch, protocol, bytes in and out": call(ours, in_bytes(row)),
        "perch, refusing": call(ours, event({"features": [row[0, :-1].tolist()]}, expected=400)),
    }


def _large() -> dict[str, Call]:
    """64 rows of 784 features; the bare call first."""
    rows = np.random.default_rng(0).random((64, 784), dtype=np.float32)
    data = linear(784, 10)
    bare, ours = session(data), perch(data)
    v2 = {"name": "X", "shape": [64, 784], "datatype": "FP32"}
    flat = event({"inputs": [{**v2, "data": rows.ravel().tolist()}]}, INFER)
    nested = event({"inputs": [{**v2, "data": rows.tolist()}]}, INFER)
    features = event({"features": rows.tolist()})
    return {
        "bare session.run": lambda: bare.run(None, {"X": rows}),
        "plain protocol handler, json module": call(plain_protocol(bare, json.loads, json.dumps), flat),
        "plain protocol handler, orjson": call(plain_protocol(bare, orjson.loads, orjson.dumps), flat),
        "Powertools, pydantic, EMF": call(powertools(bare), features),
        "FastAPI, pydantic, Mangum": call(fastapi(bare), features),
        "perch, protocol, JSON, flat": call(ours, flat),
        "perch, protocol, JSON, nested": call(ours, nested),
        "perch, protocol, bytes in and out": call(ours, in_bytes(rows)),
        "perch, features": call(ours, features),
        "perch, features, capturing": call(perch(data, PERCH_CAPTURE="1"), features),
    }


def _results(cases: dict[str, Call], calls: int) -> dict[str, dict[str, Any]]:
    timings = timed(cases, rounds=ROUNDS, calls=calls)
    medians = {name: statistics.median(values) for name, values in timings.items()}
    bare = next(iter(medians.values()))
    written = next(median for name, median in medians.items() if name.endswith("orjson"))
    return {
        name: {
            "median_us": round(medians[name], 2),
            "p99_us": round(float(np.quantile(values, 0.99)), 2),
            "added_us": round(medians[name] - bare, 2),
            "ratio_to_plain_orjson": round(medians[name] / written, 3),
        }
        for name, values in timings.items()
    }


if __name__ == "__main__":
    main()
