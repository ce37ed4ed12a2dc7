"""Export: from the file or the object that training left to an ONNX file that Perch serves, and proof that they agree.

    exported = to_onnx("model.skops", sample="rows.csv")      # or an nn.Module, or a fitted estimator
    exported.report.passed, exported.report.reason
    smaller = quantised(exported, "dynamic")
    Path("model.onnx").write_bytes(smaller.data)

For users, on their machine; no function of the cloud holds this room.

    source            what is exported: files, opened by Perch's own readers, and models in memory
    sample            rows to try it on
    torch_source, torch_onnx, sklearn_onnx      the converters of others, and what has to be set right around them
    onnx_file         what every written file has in common
    quantise          smaller numbers
    equivalence       before against after, in numbers
    torch_export, torch_programs      modules as the files that the torch runtime serves

Left to others: whether an artifact is harmless (`perch.artifacts`), and serving it.
"""

from .api import Exported, quantised, to_onnx, to_safetensors

__all__ = ["Exported", "quantised", "to_onnx", "to_safetensors"]
