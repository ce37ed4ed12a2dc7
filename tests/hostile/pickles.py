"""Pickles that run a command, by every protocol, and hidden in whatever may hold one."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

from tests.hostile import Hostile, payload
from tests.hostile.made import Runs, npy, objects, zipped

CODE = "a pickle can run code when it is loaded"
RUNS = "runs a command when it is unpickled"


def hostile(trap: Path) -> Iterator[Hostile]:
    """Every kind."""
    command = Runs(os.system, payload(trap))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield Hostile(
            title=f"pickle, protocol {protocol}, os.system",
            file="model.pkl",
            data=pickle.dumps(command, protocol),
            threat=RUNS,
            words=PICKLE_WORDS,
        )
    yield Hostile(
        title="pickle, os.system deep inside of lists and dicts",
        file="model.pickle",
        data=pickle.dumps({"weights": [[{"layer": (1, [command])}]]}),
        threat=RUNS,
        words=PICKLE_WORDS,
    )
    yield Hostile(
        title="pickle, eval by way of builtins",
        file="model.sav",
        data=pickle.dumps(Runs(eval, f"open({str(trap)!r}, 'w')")),
        threat="evaluates Python when it is unpickled",
        words=PICKLE_WORDS,
    )
    yield Hostile(
        title="pickle, a subprocess behind two harmless objects",
        file="model.joblib",
        data=pickle.dumps([1, 2.0]) + pickle.dumps(Runs(os.popen, payload(trap))),
        threat="runs a command when the second object is read",
        words=PICKLE_WORDS,
    )
    for suffix in (".onnx", ".safetensors"):
        yield Hostile(
            title=f"pickle under the name of a {suffix} file",
            file=f"model{suffix}",
            data=pickle.dumps(command),
            threat="is unpickled by whoever goes by the bytes",
            words="the bytes are a pickle",
        )
    yield Hostile(
        title="pickle in a NumPy array of objects",
        file="model.npy",
        data=npy(objects(command)),
        threat="runs a command when NumPy loads it with allow_pickle",
        words="a NumPy file can hold a pickle",
    )
    yield Hostile(
        title="pickle in an archive of NumPy arrays",
        file="model.npz",
        data=zipped({"weights.npy": npy(objects(command))}),
        threat="runs a command when NumPy loads it with allow_pickle",
        words="a NumPy file can hold a pickle",
    )
    yield Hostile(
        title="pickle in a zip entry",
        file="model.zip",
        data=zipped({"model/data.pkl": pickle.dumps(command)}),
        threat="runs a command when the entry is unpickled",
        words="an archive is not a model",
    )
    yield Hostile(
        title="pickle, compressed, under the name of an ONNX file",
        file="model.onnx",
        data=gzip.compress(pickle.dumps(command), mtime=0),
        threat="is unpacked and unpickled by joblib",
        words="the bytes are gzip-compressed",
    )


PICKLE_WORDS = "pickle"
