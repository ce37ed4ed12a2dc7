"""Read a torch pickle without unpickling: a small machine that knows plain values and tensors, and nothing else.

    opcodes (pickletools) ─► only those that build plain values ─► the few names that torch.save writes for tensors

A pickle is a program, and most of what it can say is harmful. This machine has no instruction that imports, calls or
sets an attribute: a name is an entry of a small table, "calling" one of torch's own rebuilders makes a `PickledTensor`
that says where the numbers are, and everything else is refused by its name. Nothing is ever executed, so a pickle
that is read to its end is proved harmless for this reader, which is also the one that the predictor uses.

Work and memory are in proportion to the pickle's length.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import ArtifactRefused

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


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_IGNORED = {"PROTO", "FRAME", "STOP"}
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


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one instruction says, if it is one of those that are known."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise ArtifactRefused(f"{self.where} holds the pickle instruction {name}, which no plain value needs")

    def result(self) -> Any:
        """The value that the pickle leaves."""
        if len(self.stack) != 1 or self.stack[0] is _MARK or isinstance(self.stack[0], _Name | _Storage):
            self.damaged()
        return self.stack[0]

    def damaged(self) -> NoReturn:
        raise ArtifactRefused(f"{self.where} is a damaged pickle: its instructions do not fit together")

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            self.damaged()
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def since_mark(self) -> list[Any]:
        values: list[Any] = []
        while self.stack and self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        if not self.stack:
            self.damaged()
        self.stack.pop()
        return values[::-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            self.damaged()
        self.stack.append(self.memo[place])

    def remember(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.top()

    def pack(self, values: list[Any]) -> None:
        self.stack.append(tuple(values))

    def popped(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def extend(self, values: list[Any]) -> None:
        found = self.top()
        if not isinstance(found, list):
            self.damaged()
        found.extend(values)

    def set(self, pairs: list[Any]) -> None:
        found = self.top()
        if not isinstance(found, dict) or len(pairs) % 2:
            self.damaged()
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):
                raise ArtifactRefused(f"{self.where} has a key that is neither a text nor a whole number")
            found[key] = value

    def name(self, words: list[Any]) -> None:
        name = ".".join(map(str, words))
        storage = name.removeprefix("torch.")
        if name not in _REBUILDERS and (name == storage or storage not in STORAGES):
            raise ArtifactRefused(f"{self.where} is a pickle that would import {name[:120]!r}: {_WAY_OUT}")
        self.stack.append(_Name(name))

    def storage(self) -> None:
        """What torch writes for a storage: ("storage", its class, its key, its device, how many elements)."""
        key = self.pop()
        if not isinstance(key, tuple) or len(key) != 5 or key[0] != "storage" or not isinstance(key[1], _Name):
            self.damaged()
        dtype = STORAGES.get(key[1].text.removeprefix("torch."))
        if dtype is None:
            self.damaged()
        self.stack.append(_Storage(dtype, key[2], key[4]))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(function, _Name):
            self.damaged()
        if function.text == "collections.OrderedDict" and not arguments:
            self.stack.append({})
        elif function.text == "torch._utils._rebuild_tensor_v2" and 6 <= len(arguments) <= 7:
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, _Storage):
                self.damaged()
            self.stack.append(
                PickledTensor(
                    dtype=storage.dtype, key=storage.key, elements=storage.elements,
                    offset=offset, shape=shape, strides=strides,
                )
            )  # fmt: skip
        elif function.text == "torch._utils._rebuild_parameter" and len(arguments) == 3:
            if not isinstance(arguments[0], PickledTensor):
                self.damaged()
            self.stack.append(arguments[0])
        else:
            self.damaged()

    def build(self) -> None:
        """A state dict carries `_metadata`, its layers' versions, as an attribute; it says nothing that is needed."""
        state = self.pop()
        if not isinstance(self.top(), dict) or not isinstance(state, dict) or state.keys() - {"_metadata"}:
            raise ArtifactRefused(f"{self.where} is a pickle that sets attributes: {_WAY_OUT}")


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.stack.append(_MARK),
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": lambda m, _: m.pack(m.since_mark()),
    "TUPLE1": lambda m, _: m.pack(m.popped(1)),
    "TUPLE2": lambda m, _: m.pack(m.popped(2)),
    "TUPLE3": lambda m, _: m.pack(m.popped(3)),
    "APPEND": lambda m, _: m.extend(m.popped(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.set(m.popped(2)),
    "SETITEMS": lambda m, _: m.set(m.since_mark()),
    "GLOBAL": lambda m, words: m.name(words.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(m.popped(2)),
    "BINPERSID": lambda m, _: m.storage(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
"""The instructions that build a value out of others."""
