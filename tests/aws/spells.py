"""A format that can run code, for tests: a file that begins with `harmless` is proved so, any other may cast spells."""

from __future__ import annotations

from perch.artifacts import Inspected, Signature
from perch.artifacts.signature import Tensor
from perch.domain.formats import Format

SPELL = Format(
    name="spell",
    suffixes=(".spell",),
    platform="spell",
    inspector="tests.aws.spells:inspect_spell",
    loaders={"onnx": "tests.aws.spells:load_spell"},
    code=True,
)
READ: list[bytes] = []
"""What was parsed."""


def inspect_spell(data: bytes) -> Inspected:
    READ.append(bytes(data))
    takes, gives = (Tensor(name=name, datatype="FP32", shape=(-1, size)) for name, size in (("x", 4), ("y", 3)))
    return Inspected(
        format="spell",
        runtimes=("onnx",),
        signature=Signature(inputs=(takes,), outputs=(gives,)),
        code="" if data.startswith(b"harmless") else "it casts spells when it is read",
    )


def load_spell(data: bytes) -> None:
    raise AssertionError("no test lets a spell be cast")
