"""What a file is: by its name and its bytes, without loading it."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.artifacts import ArtifactRefused, Signature, Tensor, inspect
from perch.domain.formats import format_of


class Trap:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """What a loader would call."""
        return Path.touch, (self.path,)


def archive(*names: str) -> bytes:
    """A zip archive with files of these names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name in names:
            zipped.writestr(zipfile.ZipInfo(name), b"x" * 100)  # a fixed time: the bytes name the test
    return buffer.getvalue()


def refusal(name: str, data: bytes) -> str:
    """The reason why a file is refused."""
    with pytest.raises(ArtifactRefused) as refused:
        inspect(name, data)
    return refused.value.reason


@pytest.mark.parametrize(
    "name", ["m.pt", "m.pth", "m.pkl", "m.joblib", "m.onnx", "m.safetensors", "m.bin", "m", "m.PT"]
)
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_refused_under_every_name_and_never_loaded(name: str, protocol: int, tmp_path: Path) -> None:
    """Law 2: bytes that can run code are refused, and nothing in them has run."""
    mark = tmp_path / "it-ran"
    data = pickle.dumps(Trap(mark), protocol=protocol)
    assert "pickle" in refusal(name, data)
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the trap would have worked"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("model.onnx", b"", "the file is empty"),
        ("model.pt", b"", "the file is empty"),
        ("model.bin", archive("m/data.pkl"), "a torch pickle can run code"),
        ("model.onnx", archive("m/data.pkl"), "the name says onnx and the bytes are a torch pickle"),
        ("model.safetensors", archive("m/data.pkl", "m/code/x.py", "m/constants.pkl"), "a TorchScript archive"),
        ("model.pt", archive("m/data.pkl"), "data.pkl is a damaged pickle"),
        ("model.pt2", archive("m/data.pkl"), "the bytes are a torch pickle in a zip archive"),
        ("model.pt2", archive("archive_format"), "is not one that torch.export.save writes"),
        ("model.torchscript", archive("m/constants.pkl"), "the archive has no data.pkl"),
        ("model.pt", archive("m/data.pkl")[:60], "the zip archive is cut short"),
        ("model.onnx", archive("m/data.pkl")[:60], "a damaged zip archive; it is cut short"),
        ("model.npz", archive("w.npy"), "NumPy file can hold a pickle"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "Keras file can hold code"),
        ("model.onnx", b"\x89HDF\r\n\x1a\n" + bytes(50), "the bytes are an HDF5 (Keras) file"),
        ("model.onnx", b"\x1f\x8b\x08" + bytes(50), "the bytes are gzip-compressed"),
        ("model.onnx", b"<html>404</html>", "an error page"),
        ("model.txt", b"hello", "the format is not known; served are *.onnx (onnx runtime), *.safetensors"),
        ("model.zip", archive("a"), "an archive is not a model"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(name: str, data: bytes, words: str) -> None:
    """The reason names what the file is and the way out."""
    assert words in refusal(name, data)


def test_a_safetensors_file_under_the_wrong_name_is_told_to_be_renamed() -> None:
    """The bytes are one format and the name another."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    for name in ("model.onnx", "model.bin", "model"):
        assert "the bytes are a safetensors file; rename it" in refusal(name, data)


def test_a_safetensors_header_that_looks_like_a_pickle_is_not_taken_for_one() -> None:
    """A header of 0x480 bytes begins with the magic number of a pickle."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x480)
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    assert data.startswith(b"\x80\x04")
    assert "perch.architecture" in refusal("model.safetensors", data)


@given(st.binary(max_size=300), st.sampled_from(["m.onnx", "m.safetensors", "m.pt", "m.xyz", "", "M.ONNX"]))
def test_arbitrary_bytes_are_refused_in_one_sentence(data: bytes, name: str) -> None:
    """Whatever comes, the answer is a refusal and not another error."""
    assert refusal(name, data)


def test_the_format_follows_from_the_end_of_the_name() -> None:
    """Case does not matter, folders do not matter."""
    found = format_of("models/digits/v1/Model.ONNX")
    assert found is not None
    assert list(found.loaders) == ["onnx"]
    assert format_of("model.onnx.zip") is None


def test_a_signature_survives_json() -> None:
    """What the registry stores is what was inspected."""
    signature = Signature(
        inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 64)),),
        outputs=(Tensor(name="p", datatype="SEQUENCE", shape=None), Tensor(name="l", datatype="INT64", shape=(-1,))),
    )
    assert Signature.from_json(signature.to_json()) == signature
    assert signature.to_json()["features"] == 64
