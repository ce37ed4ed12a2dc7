"""What large tensors cost beside the least that they can: copying their bytes, and base64 where Lambda wants it.

    python -m benchmarks.large_tensors

A model that gives back what it gets (ONNX `Identity`), 1 MB and 4 MB of FP32, bytes in and bytes out. Lambda's events
are JSON, so there both go in base64; in a container they do not (`raw`). Added is the time beyond the bare
`session.run`. The floors are measured in the same turns:

    memcpy     the bytes copied twice, once in, once out
    base64     decoded once and encoded once, by pybase64, which the predictor uses
    stdlib     the same by the standard library, which handlers use
    check      `np.isfinite` of input and output, since no NaN goes in or out

An answer in base64 is at most 6 MB, so 4 MB is about the most that Lambda can give back.
"""

from __future__ import annotations

import base64
import os
import statistics
from typing import Any

import numpy as np
import pybase64

from benchmarks.asking import Call, call, identity, in_bytes, perch, session, timed
from benchmarks.report import save

ROUNDS, CALLS = 20, 10
SIZES = {"1 MB": 250_000, "4 MB": 1_000_000}


def main() -> None:
    """Time, print, save."""
    load = os.getloadavg()
    found: dict[str, Any] = {}
    for size, elements in SIZES.items():
        timings = timed(_cases(elements), rounds=ROUNDS, calls=CALLS)
        median = {name: statistics.median(values) for name, values in timings.items()}
        bare = median["bare session.run"]
        rows = {
            name: {"median_us": round(us, 1), "added_us": round(us - bare, 1) if name.startswith("perch") else None}
            for name, us in median.items()
        }
        floor = median["floor: base64"] + median["floor: memcpy"]
        rows["perch, base64 (Lambda)"]["times_the_floor"] = round((median["perch, base64 (Lambda)"] - bare) / floor, 2)
        rows["perch, raw (container)"]["times_the_floor"] = round(
            (median["perch, raw (container)"] - bare) / median["floor: memcpy"], 2
        )
        found[size] = rows
        print(size)
        for name, row in rows.items():
            print(f"  {name:26} " + "  ".join(f"{key} {value}" for key, value in row.items() if value is not None))
    workload = f"Identity of FP32, bytes in and out, {ROUNDS} rounds of {CALLS} calls of each"
    save(
        "large_tensors",
        {"workload": workload, "results": found},
        packages=("onnxruntime", "numpy", "pybase64", "msgspec"),
        load=load,
    )


def _cases(elements: int) -> dict[str, Call]:
    rows = np.random.default_rng(0).random((1, elements), dtype=np.float32)
    data, model = rows.tobytes(), identity()
    text = base64.b64encode(data).decode()
    bare, ours = session(model), perch(model)
    return {
        "bare session.run": lambda: bare.run(None, {"X": rows}),
        "floor: memcpy": lambda: (bytearray(data), bytearray(data)),
        "floor: base64": lambda: (pybase64.b64decode(text, validate=True), pybase64.b64encode_as_string(data)),
        "floor: base64, stdlib": lambda: (base64.b64decode(text), base64.b64encode(data).decode()),
        "floor: check": lambda: (np.isfinite(rows).all(), np.isfinite(rows).all()),
        "perch, base64 (Lambda)": call(ours, in_bytes(rows)),
        "perch, raw (container)": call(ours, in_bytes(rows, raw=True)),
    }


if __name__ == "__main__":
    main()
