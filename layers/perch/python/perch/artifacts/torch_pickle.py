"""Read a torch pickle without unpickling: plain values and tensors, and nothing else.

    opcodes (pickletools) ─► a machine without harm (`pickle_machine`) ─► the names that torch.save writes for tensors

A pickle is a program, and most of what it can say is harmful. Here a name is an entry of a small table, "calling" one
of torch's own rebuilders makes a `PickledTensor` that says where the numbers are, and everything else is refused by its
name. Nothing is ever executed, so a pickle that is read to its end is proved harmless for this reader, which is also
the one that the predictor uses.

Work and memory are in proportion to the pickle's length.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from .errors import ArtifactRefused
from .pickle_machine import MARK, PLAIN, Machine, Steps

STORAGES = {
    "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32", "LongStorage": "I64",
    "HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32", "DoubleStorage": "F64",
    "BoolStorage": "BOOL",
}  # fmt: skip
"""The names of torch's storages, and the types of their elements."""

MAX_STEPS = 500_000
"""Instructions that are read at most; a tensor takes about forty."""

_WAY_OUT = "save only tensors and texts (a state dict), or export with torch.export or to ONNX"


@dataclass(frozen=True, kw_only=True)
class PickledTensor:
    """A tensor as the pickle tells it, unchecked: the numbers are in the archive's member `data/<key>`."""

    dtype: str
    key: Any
    elements: Any
    offset: Any
    shape: Any
    strides: Any


@dataclass(frozen=True)
class _Name:
    """A name that the pickle would import; here only a word."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: Any
    elements: Any


_REBUILDERS = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "collections.OrderedDict"}


def read_pickle(data: bytes, where: str) -> Any:
    """Return what a torch pickle says: dicts, lists, tuples, texts, numbers, and `PickledTensor`s.

    Args:
        data: the whole pickle.
        where: its name in the archive, for the sentence of a refusal.

    Raises:
        ArtifactRefused: it says anything else; the reason names it.
    """
    machine = _Machine(where)
    for name, argument in opcodes(data, where):
        machine.step(name, argument)
    return machine.result()


def opcodes(data: bytes, where: str, *, most: int = MAX_STEPS) -> Iterator[tuple[str, Any]]:
    """The instructions of a pickle with their arguments, to its end.

    Raises:
        ArtifactRefused: it is damaged, or has more than `most`.
    """
    end = 0
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data), 1):
            if count > most:
                raise ArtifactRefused(f"{where} is a pickle of more than {most:,} instructions")
            end = (at or 0) + 1
            yield opcode.name, argument
    except (ValueError, IndexError, UnicodeError, OverflowError, MemoryError) as error:
        raise ArtifactRefused(f"{where} is a damaged pickle: {str(error)[:120]}") from error
    if end != len(data):
        raise ArtifactRefused(f"{where} has bytes behind the end of its pickle")


class _Machine(Machine):
    """Plain values, and tensors as places in the archive."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def result(self) -> Any:
        """The value that the pickle leaves."""
        if len(self.stack) != 1 or self.stack[0] is MARK or isinstance(self.stack[0], _Name | _Storage):
            self.damaged()
        return self.stack[0]

    def unknown(self, opcode: str) -> NoReturn:
        raise ArtifactRefused(f"{self.where} holds the pickle instruction {opcode}, which no plain value needs")

    def damaged(self) -> NoReturn:
        raise ArtifactRefused(f"{self.where} is a damaged pickle: its instructions do not fit together")

    def is_key(self, key: Any) -> bool:
        if not isinstance(key, str | int):
            raise ArtifactRefused(f"{self.where} has a key that is neither a text nor a whole number")
        return True

    def name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}"
        storage = text.removeprefix("torch.")
        if text not in _REBUILDERS and (text == storage or storage not in STORAGES):
            raise ArtifactRefused(f"{self.where} is a pickle that would import {text[:120]!r}: {_WAY_OUT}")
        self.push(_Name(text))

    def storage(self) -> None:
        """What torch writes for a storage: ("storage", its class, its key, its device, how many elements)."""
        key = self.pop()
        if not isinstance(key, tuple) or len(key) != 5 or key[0] != "storage" or not isinstance(key[1], _Name):
            self.damaged()
        dtype = STORAGES.get(key[1].text.removeprefix("torch."))
        if dtype is None:
            self.damaged()
        self.push(_Storage(dtype, key[2], key[4]))

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple) or not isinstance(function, _Name):
            self.damaged()
        if function.text == "collections.OrderedDict" and not arguments:
            self.push({})
        elif function.text == "torch._utils._rebuild_tensor_v2" and 6 <= len(arguments) <= 7:
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, _Storage):
                self.damaged()
            self.push(
                PickledTensor(
                    dtype=storage.dtype, key=storage.key, elements=storage.elements,
                    offset=offset, shape=shape, strides=strides,
                )
            )  # fmt: skip
        elif function.text == "torch._utils._rebuild_parameter" and len(arguments) == 3:
            if not isinstance(arguments[0], PickledTensor):
                self.damaged()
            self.push(arguments[0])
        else:
            self.damaged()

    def build(self, state: Any) -> None:
        """A state dict carries `_metadata`, its layers' versions, as an attribute; it says nothing that is needed."""
        if not isinstance(self.top(), dict) or not isinstance(state, dict) or state.keys() - {"_metadata"}:
            raise ArtifactRefused(f"{self.where} is a pickle that sets attributes: {_WAY_OUT}")

    steps: ClassVar[Steps] = {**PLAIN, "BINPERSID": lambda m, _: m.storage()}
