"""Smaller numbers in an ONNX file: weights as 8-bit integers, or everything as 16-bit floats.

    dynamic   the weights of matrix products and convolutions become int8, a quarter of their size; what flows through
              them is rounded as it comes. Takes the standard operators DynamicQuantizeLinear and MatMulInteger.
    float16   all weights and calculations have 16 bits, half of the size; inputs and outputs stay as they were. A CPU
              without such arithmetic is slower with it, so it is for size.

Whether the model still says the same is not for this file to know: `perch.export.equivalence` compares. Trees have
nothing to round and are refused.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perch.domain.errors import Refused

from .onnx_file import finished

_ROUNDED = frozenset({"Conv", "EmbedLayerNormalization", "Gather", "Gemm", "LSTM", "MatMul"})


def quantise(data: bytes, how: str) -> bytes:
    """Return an ONNX file with smaller numbers; its metadata stays.

    Args:
        data: an ONNX file that was inspected.
        how: a key of `METHODS`.

    Raises:
        Refused: nothing in the model can be made smaller in this way.
    """
    import onnx  # noqa: PLC0415 - this module's list of methods is read by the command's help

    before = onnx.load_model_from_string(data)
    metadata = {entry.key: entry.value for entry in before.metadata_props}
    written = finished(METHODS[how](before), metadata)
    if len(written) >= len(data):
        raise Refused(
            f"quantised ({how}), the file would have {len(written):,} bytes instead of {len(data):,}: most of it is "
            "no weights; leave it as it is"
        )
    return written


def _dynamic(model: Any) -> Any:
    import onnx  # noqa: PLC0415 - as above
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - as above

    if not any(node.op_type in _ROUNDED for node in model.graph.node):
        raise Refused(
            "nothing in this model can be quantised: it has no matrix product, convolution or table of weights"
        )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "quantised.onnx"
        logging.disable(logging.WARNING)  # it advises a preparation that changes nothing here
        try:
            # Unsigned convolution weights are what onnxruntime's CPU kernel takes; it has none for signed ones.
            quantize_dynamic(model, path, weight_type=QuantType.QUInt8)
        except Exception as error:
            raise Refused(f"onnxruntime cannot quantise this model: {str(error).splitlines()[0][:200]}") from error
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(path)


def _float16(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - as above
    from onnxruntime.transformers.onnx_model import OnnxModel  # noqa: PLC0415 - as above

    if any(node.domain == "ai.onnx.ml" for node in model.graph.node):
        raise Refused("operators of classical models (trees, scalers, linear classifiers) have no 16-bit form")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that are rounded to zero; the comparison tells whether it matters
        try:
            half = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
            half.topological_sort()  # the casts at the inputs were put at the end
        except Exception as error:
            raise Refused(f"this model has no 16-bit form: {str(error).splitlines()[0][:200]}") from error
    return half.model


METHODS: Mapping[str, Callable[[Any], Any]] = {"dynamic": _dynamic, "float16": _float16}
